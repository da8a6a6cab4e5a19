import { parse } from "./colour.ts";
import type { Rgb } from "./colour.ts";
import { SLOTS } from "../shared/slots.ts";
import type { Slot } from "../shared/slots.ts";

/** The root element's colours and font, read once a redraw. */
export interface Palette extends Readonly<Record<Slot, string>> {
  readonly bg: string;
  readonly paper: Rgb;
  readonly text: string;
  readonly muted: string;
  readonly line: string;
  readonly hatch: string;
  readonly odd: string;
  readonly pick: string;
  readonly family: string;
}

export function palette(root: HTMLElement): Palette {
  const style = getComputedStyle(root);
  const get = (name: string) => style.getPropertyValue(`--cka-${name}`).trim();
  const bg = style.backgroundColor;
  return {
    bg,
    paper: parse(bg),
    text: get("text"),
    muted: get("muted"),
    line: get("line"),
    hatch: get("hatch"),
    ...(Object.fromEntries(SLOTS.map((slot) => [slot, get(slot)])) as Record<Slot, string>),
    odd: get("odd"),
    pick: get("pick"),
    family: style.fontFamily,
  };
}

/** Fonts of the canvas; sizes in CSS pixels. */
export const font = (p: Palette, size = 11.5, weight = 400): string => `${weight} ${size}px ${p.family}`;
