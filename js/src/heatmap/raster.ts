import { mix, rgb } from "./colour.ts";
import type { Rgb } from "./colour.ts";
import type { Grid } from "./grid.ts";

export interface Shade {
  readonly colours: Uint8Array;
  readonly vmin: number;
  readonly vmax: number;
  /** How far a cell of unknown error fades towards `paper`, 0 to 1; standard errors above `limit` fade in part. */
  readonly fade: number;
  readonly limit: number;
  readonly paper: Rgb;
  readonly bottom: boolean;
}

const STEPS = 16;

const pack = ([r, g, b]: Rgb): number => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;

/** One RGBA pixel a cell, first screen row first; undefined cells are see-through (0). */
export function pixels(g: Grid, shade: Shade): Uint32Array<ArrayBuffer> {
  const { colours, vmin, vmax, fade, limit, paper, bottom } = shade;
  const faded = g.stderr.length > 0 && fade > 0;
  const lut = new Uint32Array(256 * (faded ? STEPS : 1));
  for (let i = 0; i < lut.length; i++) {
    lut[i] = pack(mix(rgb(colours, i & 255), paper, (fade * (i >> 8)) / (STEPS - 1)));
  }
  const { values, stderr, rows, cols } = g;
  const out = new Uint32Array(rows * cols);
  // The sums of `index` and `doubt` written out: a call a cell costs more than the whole rest at 1000 x 1000.
  const scale = vmax > vmin ? 255 / (vmax - vmin) : 0;
  const shift = vmax > vmin ? 0.5 - vmin * scale : 128;
  for (let r = 0; r < rows; r++) {
    const move = ((bottom ? rows - 1 - r : r) - r) * cols;
    for (let i = r * cols, end = i + cols; i < end; i++) {
      const t = values[i] * scale + shift;
      if (t !== t) continue;
      let at = t <= 0 ? 0 : t >= 255 ? 255 : t | 0;
      if (faded) {
        const e = stderr[i];
        if (e > limit) at |= (((1 - limit / e) * (STEPS - 1) + 0.5) | 0) << 8;
        else if (e !== e) at |= (STEPS - 1) << 8;
      }
      out[i + move] = lut[at];
    }
  }
  return out;
}
