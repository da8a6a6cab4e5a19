import type { Model } from "../shared/model.ts";

/** The synced traits of the Python class, by name. */
export interface Traits {
  values: DataView;
  stderr: DataView;
  shape: number[];
  version: number;
  row_labels: string[];
  col_labels: string[];
  row_info: string[];
  col_info: string[];
  row_name: string;
  col_name: string;
  row_color: string;
  col_color: string;
  vmin: number;
  vmax: number;
  auto_range: boolean;
  colormap: string;
  value_name: string;
  /** Runs along the colour bar; empty for nothing. */
  bar_title: string;
  /** The value that chance gives, which the colour bar marks; null where it is 0 or not known. */
  chance: number | null;
  title: string;
  row_reasons: string[];
  col_reasons: string[];
  reason: string;
  origin: string;
  best_match: boolean;
  annotate: boolean;
  brackets: boolean;
  square: boolean;
  compact: boolean;
  flag_rows: number[];
  flag_cols: number[];
  uncertain_above: number;
  settled: boolean;
  selected: number[];
  hovered: number[];
  theme: string;
  height: number;
}

export type TraitName = keyof Traits;

/** Traits that the kernel writes and that change the picture; the rest is handled one by one. */
export const DRAWN: readonly TraitName[] = [
  "values", "stderr", "shape", "version", "row_labels", "col_labels", "row_info", "col_info", "row_name", "col_name",
  "row_color", "col_color", "vmin", "vmax", "auto_range", "colormap", "value_name", "bar_title", "chance", "title",
  "row_reasons", "col_reasons", "reason", "origin", "best_match", "annotate", "brackets", "square", "compact", "flag_rows",
  "flag_cols", "uncertain_above", "settled", "height",
];

export type Cell = readonly [row: number, col: number];

/** A cell from a `selected` or `hovered` trait; null where it is empty or outside the matrix. */
export function cellOf(pair: readonly number[] | undefined, rows: number, cols: number): Cell | null {
  if (!pair || pair.length !== 2) return null;
  const [r, c] = pair;
  return Number.isInteger(r) && Number.isInteger(c) && r >= 0 && c >= 0 && r < rows && c < cols ? [r, c] : null;
}

export const sameCell = (a: Cell | null, b: Cell | null): boolean =>
  a === b || (a !== null && b !== null && a[0] === b[0] && a[1] === b[1]);

export type HeatmapModel = Model<Traits>;
