/** Places of the palette that models have, one each; the style sheets hold their colours. */
export const SLOTS = ["a", "b", "c", "d", "e"] as const;
export type Slot = (typeof SLOTS)[number];

/** A slot by the name that Python gave. */
export const slotOf = (name: string): Slot => SLOTS.find((slot) => slot === name) ?? "a";
