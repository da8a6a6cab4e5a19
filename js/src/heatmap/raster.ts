import { index, mix, rgb } from "./colour.ts";
import type { Rgb } from "./colour.ts";
import { doubt } from "./grid.ts";
import type { Grid } from "./grid.ts";

export interface Shade {
  readonly colours: Uint8Array;
  readonly vmin: number;
  readonly vmax: number;
  /** How far a cell of unknown error fades towards `paper`, 0 to 1; standard errors above `limit` fade in part. */
  readonly fade: number;
  readonly limit: number;
  readonly settled: boolean;
  readonly paper: Rgb;
  readonly bottom: boolean;
}

const STEPS = 16;

const pack = ([r, g, b]: Rgb): number => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;

/** One RGBA pixel a cell, first screen row first; undefined cells are see-through (0). */
export function pixels(g: Grid, shade: Shade): Uint32Array<ArrayBuffer> {
  const { colours, vmin, vmax, fade, limit, settled, paper, bottom } = shade;
  const faded = g.stderr.length > 0 && fade > 0;
  const lut = new Uint32Array(256 * (faded ? STEPS : 1));
  for (let i = 0; i < lut.length; i++) {
    lut[i] = pack(mix(rgb(colours, i & 255), paper, (fade * (i >> 8)) / (STEPS - 1)));
  }
  const out = new Uint32Array(g.rows * g.cols);
  for (let r = 0; r < g.rows; r++) {
    let at = (bottom ? g.rows - 1 - r : r) * g.cols;
    for (let i = r * g.cols; i < (r + 1) * g.cols; i++, at++) {
      const v = g.values[i];
      if (v !== v) continue;
      const u = faded ? doubt(g.stderr[i], limit, settled) : 0;
      out[at] = lut[(Math.round(u * (STEPS - 1)) << 8) | index(v, vmin, vmax)];
    }
  }
  return out;
}
