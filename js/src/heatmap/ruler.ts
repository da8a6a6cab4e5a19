import { isBottom } from "./scene.ts";
import type { Scene, Side } from "./scene.ts";
import { edge, flip } from "./view.ts";

/** One axis in its own direction: where index i stands, whatever the zoom and the origin. */
export interface Ruler {
  readonly row: boolean;
  readonly side: Side;
  readonly from: number;
  readonly length: number;
  readonly pitch: number;
  readonly first: number;
  readonly last: number;
  at(index: number): number;
}

export function ruler(s: Scene, which: "row" | "col"): Ruler {
  const row = which === "row";
  const { plot } = s.layout;
  const [start, shown, from, length, count, bottom] = row
    ? [s.view.top, s.view.rows, plot.y, plot.h, s.grid.rows, isBottom(s)]
    : [s.view.left, s.view.cols, plot.x, plot.w, s.grid.cols, false];
  const ends = [flip(Math.floor(start), count, bottom), flip(Math.min(count, Math.ceil(start + shown)) - 1, count, bottom)];
  return {
    row,
    side: row ? s.row : s.col,
    from,
    length,
    pitch: length / shown,
    first: Math.min(...ends),
    last: Math.max(...ends),
    at: (index) => edge(flip(index, count, bottom) + 0.5, start, shown, from, length),
  };
}
