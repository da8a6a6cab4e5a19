export type Measure = (text: string) => number;

/** Least distance between the middles of two lines of labels, in pixels. */
export const LABEL = 13.5;

/** The longest shortening of a text, with its middle left out, that is not wider than `width`; "" where none is. */
export function shorten(text: string, width: number, measure: Measure): string {
  if (measure(text) <= width) return text;
  let lo = 0;
  let hi = text.length - 1;
  while (lo < hi) {
    const mid = (lo + hi + 1) >> 1;
    if (measure(middle(text, mid)) <= width) lo = mid;
    else hi = mid - 1;
  }
  return lo > 0 ? middle(text, lo) : "";
}

/** Keeps `keep` characters, the end with the odd one: the end of a layer's name tells more than its start. */
function middle(text: string, keep: number): string {
  const chars = [...text];
  const tail = Math.ceil(keep / 2);
  return chars.slice(0, keep - tail).join("") + "…" + chars.slice(chars.length - tail).join("");
}

export interface Span {
  readonly name: string;
  /** Pixels along the axis: of the whole bracket, and of what is on screen of it. */
  readonly whole: number;
  readonly seen: number;
}

/**
 * What stands at the brackets of one level: their names; where one of block1, block2, ... has no room, the numbers
 * of all of them, with their `stem` for the axis; nothing where a name would be cut beyond recognition.
 */
export function bracketTexts(spans: readonly Span[], measure: Measure): { texts: string[]; stem: string } {
  const stem = (name: string) => name.replace(/\d+$/, "");
  const stems = spans.map((b) => stem(b.name));
  const tight = new Set(spans.flatMap((b, i) => (measure(b.name) > b.whole ? [stems[i]] : [])));
  // A number alone tells nothing where it has no neighbours.
  for (const one of tight) if (stems.indexOf(one) === stems.lastIndexOf(one)) tight.delete(one);
  const texts = spans.map(({ name, seen }) => {
    const text = (tight.has(stem(name)) && name.slice(stem(name).length)) || name;
    const cut = shorten(text, seen, measure);
    return cut === text || cut.length > 4 ? cut : "";
  });
  const numbered = new Set(spans.filter((b, i) => texts[i] && texts[i] !== b.name && !texts[i].includes("…")).map((b) => stem(b.name)));
  return { texts, stem: numbered.size === 1 ? [...numbered][0] : "" };
}

/**
 * Which of the labels first..last can be drawn, each `pitch` pixels from the next, no two nearer than `least`
 * pixels. Those in `ranked` are kept before the others, in their order; those in `focus` push neighbours out
 * without moving the rest, so that labels hold still under a moving pointer.
 */
export function thin(
  first: number,
  last: number,
  pitch: number,
  least: number,
  ranked: Iterable<number>,
  focus: readonly number[] = [],
): number[] {
  if (pitch >= least) return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i);
  const gap = Math.ceil(least / pitch);
  const taken = new Uint8Array(Math.max(0, last - first + 1));
  let kept: number[] = [];
  const keep = (i: number) => {
    if (i < first || i > last || taken[i - first]) return;
    kept.push(i);
    taken.fill(1, Math.max(0, i - gap + 1 - first), Math.min(last, i + gap - 1) - first + 1);
  };
  for (const i of ranked) keep(i);
  for (let i = first; i <= last; i++) keep(i);
  for (const i of focus) {
    if (i >= first && i <= last) kept = [...kept.filter((k) => Math.abs(k - i) >= gap), i];
  }
  return kept.sort((a, b) => a - b);
}
