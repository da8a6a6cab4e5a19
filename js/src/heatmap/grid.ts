/** The numbers of one matrix, as they came over the wire. */
export interface Grid {
  readonly rows: number;
  readonly cols: number;
  readonly values: Float32Array;
  /** Standard errors, or empty where there are none. */
  readonly stderr: Float32Array;
}

export const EMPTY: Grid = { rows: 0, cols: 0, values: new Float32Array(0), stderr: new Float32Array(0) };

/** A grid, or null while the traits do not fit together yet (they may arrive one by one). */
export function grid(shape: readonly number[], values: Float32Array, stderr: Float32Array): Grid | null {
  const [rows, cols] = shape.length === 2 ? shape : [0, 0];
  if (values.length !== rows * cols) return null;
  return { rows, cols, values, stderr: stderr.length === values.length ? stderr : new Float32Array(0) };
}

/** Smallest and largest defined value; [0, 1] where there is none. */
export function extent({ values }: Grid): [number, number] {
  let lo = Infinity;
  let hi = -Infinity;
  for (const v of values) {
    if (v < lo) lo = v;
    if (v > hi) hi = v;
  }
  if (lo > hi) return [0, 1];
  return lo === hi ? [lo - 0.5, hi + 0.5] : [lo, hi];
}

/** Column of the largest defined value of each row; -1 where a row has none. */
export function bestPerRow({ rows, cols, values }: Grid): Int32Array {
  const best = new Int32Array(rows).fill(-1);
  for (let r = 0; r < rows; r++) {
    let top = -Infinity;
    for (let c = 0; c < cols; c++) {
      const v = values[r * cols + c];
      if (v > top) {
        top = v;
        best[r] = c;
      }
    }
  }
  return best;
}

/**
 * How far a cell is from certain: 0 is certain, 1 is not known at all.
 * u = 1 - limit / stderr above the limit; an unknown error counts as 1.
 */
export function doubt(stderr: number, limit: number): number {
  if (Number.isNaN(stderr)) return 1;
  return stderr > limit && limit > 0 ? 1 - limit / stderr : 0;
}

/** The numbers of one cell. */
export function cell(g: Grid, row: number, col: number): { value: number; stderr: number } {
  const i = row * g.cols + col;
  return { value: g.values[i], stderr: g.stderr.length ? g.stderr[i] : NaN };
}
