/** The part of the matrix on screen, in cells; rows count downwards on the screen, whatever the origin. */
export interface View {
  readonly top: number;
  readonly left: number;
  readonly rows: number;
  readonly cols: number;
}

export interface Rect {
  readonly x: number;
  readonly y: number;
  readonly w: number;
  readonly h: number;
}

export interface Size {
  readonly rows: number;
  readonly cols: number;
}

const FEWEST = 3;

export function whole({ rows, cols }: Size): View {
  return { top: 0, left: 0, rows, cols };
}

export function isWhole(view: View, { rows, cols }: Size): boolean {
  return view.rows >= rows && view.cols >= cols;
}

const clamp = (v: number, lo: number, hi: number) => Math.max(lo, Math.min(hi, v));

function within(view: View, { rows, cols }: Size): View {
  const h = Math.min(view.rows, rows);
  const w = Math.min(view.cols, cols);
  return { rows: h, cols: w, top: clamp(view.top, 0, rows - h), left: clamp(view.left, 0, cols - w) };
}

/** Zooms by `factor` (above 1 goes nearer); the point at the fractions (fx, fy) of the plot stays where it is. */
export function zoom(view: View, size: Size, fx: number, fy: number, factor: number): View {
  const rows = clamp(view.rows / factor, Math.min(FEWEST, size.rows), size.rows);
  const cols = clamp(view.cols / factor, Math.min(FEWEST, size.cols), size.cols);
  const top = view.top + fy * (view.rows - rows);
  const left = view.left + fx * (view.cols - cols);
  return within({ top, left, rows, cols }, size);
}

/** Moves the view by a number of cells. */
export function pan(view: View, size: Size, down: number, right: number): View {
  return within({ ...view, top: view.top + down, left: view.left + right }, size);
}

/** The least move that brings a cell (screen row, column) into the view. */
export function reveal(view: View, size: Size, row: number, col: number): View {
  const top = clamp(view.top, row + 1 - view.rows, row);
  const left = clamp(view.left, col + 1 - view.cols, col);
  return within({ ...view, top, left }, size);
}

/** Index <-> screen row; the same sum both ways. */
export function flip(row: number, rows: number, bottom: boolean): number {
  return bottom ? rows - 1 - row : row;
}

/** Screen row and column under a point of the plot; null outside. */
export function hit(view: View, size: Size, plot: Rect, x: number, y: number): [number, number] | null {
  if (x < plot.x || y < plot.y || x >= plot.x + plot.w || y >= plot.y + plot.h) return null;
  const row = Math.floor(view.top + ((y - plot.y) / plot.h) * view.rows);
  const col = Math.floor(view.left + ((x - plot.x) / plot.w) * view.cols);
  return row < size.rows && col < size.cols ? [row, col] : null;
}

/** Where the edge before a screen row or column stands along its axis, in pixels. */
export function edge(at: number, first: number, shown: number, from: number, length: number): number {
  return from + ((at - first) / shown) * length;
}

/** The rectangle of a cell given by screen row and column, on whole device pixels. */
export function cellRect(view: View, plot: Rect, row: number, col: number, dpr: number): Rect {
  const snap = (v: number) => Math.round(v * dpr) / dpr;
  const x = snap(edge(col, view.left, view.cols, plot.x, plot.w));
  const y = snap(edge(row, view.top, view.rows, plot.y, plot.h));
  const w = snap(edge(col + 1, view.left, view.cols, plot.x, plot.w)) - x;
  const h = snap(edge(row + 1, view.top, view.rows, plot.y, plot.h)) - y;
  return { x, y, w, h };
}
