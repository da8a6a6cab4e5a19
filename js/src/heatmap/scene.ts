import { table } from "./colour.ts";
import { bestPerRow, EMPTY, extent, grid } from "./grid.ts";
import type { Grid } from "./grid.ts";
import { layout } from "./layout.ts";
import type { Layout } from "./layout.ts";
import { axis } from "./names.ts";
import type { Axis } from "./names.ts";
import { cellOf } from "./traits.ts";
import type { Cell, HeatmapModel, Traits } from "./traits.ts";
import { flip, whole } from "./view.ts";
import type { View } from "./view.ts";
import { floats } from "../shared/model.ts";
import { slotOf } from "../shared/slots.ts";
import type { Slot } from "../shared/slots.ts";
import { LABEL, thin } from "./fit.ts";
import type { Measure } from "./fit.ts";

export type Options = Omit<Traits, "values" | "stderr" | "shape" | "version" | "selected" | "hovered" | "theme">;

export interface Side {
  readonly full: readonly string[];
  readonly info: readonly string[];
  readonly reasons: readonly string[];
  readonly name: string;
  readonly color: Slot;
  readonly flags: ReadonlySet<number>;
  readonly axis: Axis;
}

/** Everything that the drawing needs to know, worked out from the traits and the size. */
export interface Scene {
  grid: Grid;
  options: Options;
  row: Side;
  col: Side;
  vmin: number;
  vmax: number;
  colours: Uint8Array;
  best: Int32Array | null;
  layout: Layout;
  view: View;
  pinned: Cell | null;
  pointed: Cell | null;
}

/** Room for a label that is seen only after zooming in, in pixels; longer ones lose their middle. */
const ZOOMED = 66;

const NO_AXIS: Axis = { texts: [], brackets: [], starts: [], levels: 0, common: "" };

function side(o: Options, which: "row" | "col", count: number, most: number, before: Side | undefined): Side {
  const given = o[`${which}_labels`];
  const full = given.length === count ? given : Array.from({ length: count }, (_, i) => given[i] ?? `#${i}`);
  // Working out brackets costs a pass over all names; the same names come with every update of a run.
  const key = `${most}\n${full.join("\n")}`;
  const kept = before && keys.get(before) === key ? before.axis : undefined;
  const made: Side = {
    full,
    info: o[`${which}_info`],
    reasons: o[`${which}_reasons`],
    name: o[`${which}_name`],
    color: slotOf(o[`${which}_color`]),
    flags: new Set(o[`flag_${which}s`]),
    axis: kept ?? (count === 0 ? NO_AXIS : axis(full, most)),
  };
  keys.set(made, key);
  return made;
}

const keys = new WeakMap<Side, string>();

/** The traits as one plain object. */
export function readOptions(model: HeatmapModel): Options {
  const names = [
    "row_labels", "col_labels", "row_info", "col_info", "row_name", "col_name", "row_color", "col_color", "vmin",
    "vmax", "auto_range", "colormap", "value_name", "bar_title", "chance", "title", "row_reasons", "col_reasons", "reason", "origin",
    "best_match", "annotate", "brackets", "square", "compact", "flag_rows", "flag_cols", "uncertain_above",
    "settled", "height",
  ] as const;
  return Object.fromEntries(names.map((n) => [n, model.get(n)])) as unknown as Options;
}

/** A scene for the model's present state; `before` lends what has not changed and the zoom. */
export function compose(model: HeatmapModel, width: number, measure: Measure, before: Scene | null): Scene {
  const options = readOptions(model);
  const read = grid(model.get("shape"), floats(model.get("values")), floats(model.get("stderr")));
  const g = read ?? before?.grid ?? EMPTY;
  // Two levels of brackets need cells of some size: inner groups hold about six layers.
  const levels = (length: number, count: number) =>
    !options.brackets || options.compact ? 0 : width < 460 || (length / count) * 6 < 14 ? 1 : 2;
  const row = side(options, "row", g.rows, levels(options.height || 560, g.rows), before?.row);
  const col = side(options, "col", g.cols, levels(width - 250, g.cols), before?.col);
  const [vmin, vmax] = options.auto_range ? extent(g) : [options.vmin, options.vmax];
  const { compact } = options;
  const rowTexts = compact ? compactRows(row) : row.axis.texts;
  // Labels that are thinned out get no more than ZOOMED, which they need once zoomed in.
  const widest = (texts: readonly string[], shown: readonly number[] | null): number => {
    const all = texts.reduce((w, t) => Math.max(w, measure(t)), 0);
    return shown ? shown.reduce((w, i) => Math.max(w, measure(texts[i])), Math.min(all, ZOOMED)) : all;
  };
  const lay = (rows: readonly number[] | null, cols: readonly number[] | null) => layout({
    width,
    height: options.height,
    rows: g.rows,
    cols: g.cols,
    rowText: Math.max(widest(rowTexts, rows), compact ? measure(col.name) : 0),
    colText: widest(col.axis.texts, cols),
    rowLevels: row.axis.levels,
    colLevels: col.axis.levels,
    compact,
    square: options.square,
    title: options.title !== "",
    barTitle: Boolean(options.bar_title),
  });
  // Room is made for the labels that can be shown at once, not for all.
  const { plot } = lay(null, null);
  const kept = (s: Side, count: number, length: number) =>
    thin(0, count - 1, length / count, LABEL, s.axis.starts);
  const placed = lay(kept(row, g.rows, plot.h), kept(col, g.cols, plot.w));
  const same = before !== null && before.grid.rows === g.rows && before.grid.cols === g.cols;
  return {
    grid: g,
    options,
    row,
    col,
    vmin,
    vmax,
    colours: before && before.options.colormap === options.colormap ? before.colours : table(options.colormap),
    best: options.best_match ? bestPerRow(g) : null,
    layout: placed,
    view: same && !compact ? before.view : whole(g),
    pinned: cellOf(model.get("selected"), g.rows, g.cols),
    pointed: same ? before.pointed : null,
  };
}

/** Row labels of a compact matrix carry the model's name, as there is no axis title. */
export function compactRows(row: Side): string[] {
  return row.axis.texts.map((t) => (row.name ? `${row.name} ${t}` : t));
}

export const isBottom = (s: Scene): boolean => s.options.origin === "bottom";

/** Screen row of a matrix row, and back. */
export const screenRow = (s: Scene, row: number): number => flip(row, s.grid.rows, isBottom(s));

/** The cell that the crosshair stands on. */
export const target = (s: Scene): Cell | null => s.pointed ?? s.pinned;
