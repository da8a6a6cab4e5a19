import { parse } from "./colour.ts";
import type { Rgb } from "./colour.ts";

/** The root element's colours and font, read once a redraw. */
export interface Palette {
  readonly bg: string;
  readonly paper: Rgb;
  readonly text: string;
  readonly muted: string;
  readonly line: string;
  readonly hatch: string;
  readonly a: string;
  readonly b: string;
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
    a: get("a"),
    b: get("b"),
    odd: get("odd"),
    pick: get("pick"),
    family: style.fontFamily,
  };
}

/** Fonts of the canvas; sizes in CSS pixels. */
export const font = (p: Palette, size = 11.5, weight = 400): string => `${weight} ${size}px ${p.family}`;
