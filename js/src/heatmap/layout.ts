import type { Rect } from "./view.ts";

export interface Wish {
  readonly width: number;
  /** Pixels; 0 lets the width and the number of rows decide. */
  readonly height: number;
  readonly rows: number;
  readonly cols: number;
  /** Widest label of each axis, in pixels. */
  readonly rowText: number;
  readonly colText: number;
  readonly rowLevels: number;
  readonly colLevels: number;
  readonly compact: boolean;
  readonly square: boolean;
  readonly title: boolean;
  /** Whether text runs along the colour bar. */
  readonly barTitle: boolean;
}

/** Where everything stands, in CSS pixels. */
export interface Layout {
  readonly width: number;
  readonly height: number;
  readonly plot: Rect;
  /** The colour bar without its numbers; null where there is none. */
  readonly bar: Rect | null;
  /** Room for the labels: width on the left, height at the bottom. */
  readonly rowRoom: number;
  readonly colRoom: number;
  readonly upright: boolean;
  /** Middle lines of the two axis names. */
  readonly rowTitle: number;
  readonly colTitle: number;
}

export const LEVEL = 22;
export const GAP = 7;
const TITLE = 20;
const BAR_TITLE = 19;
/** The widest cell where the height does not ask for more, in pixels. */
const CELL = 64;

const clamp = (v: number, lo: number, hi: number) => Math.max(lo, Math.min(Math.max(lo, hi), v));

/** Sizes of a heatmap: cells near square, room for the labels, in the middle of the width there is. */
export function layout(w: Wish): Layout {
  return w.compact ? compact(w) : full(w);
}

function full(w: Wish): Layout {
  const narrow = w.width < 460;
  const rowRoom = Math.ceil(Math.min(w.rowText, clamp(w.width * 0.2, 44, 150)));
  const beside = TITLE + w.rowLevels * LEVEL + rowRoom + GAP;
  const right = (narrow ? 54 : 74) + (w.barTitle ? BAR_TITLE : 0);
  const top = w.title ? 30 : 7;
  const cols = Math.max(1, w.cols);
  const rows = Math.max(1, w.rows);
  const below = (upright: boolean) => {
    const colRoom = upright ? 14 : Math.ceil(Math.min(w.colText, narrow ? 70 : 96));
    const bottom = GAP + colRoom + w.colLevels * LEVEL + TITLE + 6;
    const tall = Math.max(40, w.height - top - bottom);
    // Cells of few columns are as wide as the given height makes them tall.
    const cell = w.height > 0 ? Math.max(CELL, tall / rows) : CELL;
    const wide = Math.max(40, Math.min(w.width - beside - right, cols * cell));
    return { upright, colRoom, bottom, tall, wide };
  };
  const standing = below(true);
  const fits = w.colText + 6 <= standing.wide / cols;
  const { upright, colRoom, bottom, tall, wide } = fits ? standing : below(false);
  let plotW = wide;
  let plotH = w.height > 0 ? tall : clamp((wide / cols) * rows, Math.min(rows * 16, 340), 680);
  if (w.square) {
    const side = Math.min(plotW / cols, plotH / rows);
    plotW = side * cols;
    plotH = side * rows;
  }
  plotW = Math.floor(plotW);
  plotH = Math.floor(plotH);
  const start = Math.max(0, Math.floor((w.width - beside - plotW - right) / 2));
  const left = start + beside;
  const plot = { x: left, y: top, w: plotW, h: plotH };
  return {
    width: w.width,
    height: w.height > 0 ? Math.max(w.height, top + plotH + bottom) : top + plotH + bottom,
    plot,
    bar: { x: left + plotW + (narrow ? 12 : 22), y: top, w: narrow ? 9 : 13, h: plotH },
    rowRoom,
    colRoom,
    upright,
    rowTitle: start + TITLE / 2,
    colTitle: top + plotH + bottom - TITLE / 2 - 2,
  };
}

function compact(w: Wish): Layout {
  const rowRoom = Math.ceil(Math.min(w.rowText, w.width * 0.3));
  const left = rowRoom + GAP;
  const cols = Math.max(1, w.cols);
  const rows = Math.max(1, w.rows);
  const top = w.title ? 26 : 3;
  const bottom = 22;
  let plotW = Math.max(24, Math.min(w.width - left - 4, cols * CELL));
  const cellH = Math.min(plotW / cols, 30, 420 / rows);
  let plotH = w.height > 0 ? Math.max(24, w.height - top - bottom) : Math.max(cellH * rows, 24);
  if (w.square) plotW = plotH = Math.min(plotW / cols, plotH / rows) * cols;
  plotW = Math.floor(plotW);
  plotH = Math.floor(plotH);
  const plot = { x: left, y: top, w: plotW, h: plotH };
  const height = Math.max(w.height, top + plotH + bottom);
  return { width: w.width, height, plot, bar: null, rowRoom, colRoom: 14, upright: true, rowTitle: 0, colTitle: 0 };
}
