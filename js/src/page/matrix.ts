import type { Traits } from "../heatmap/traits.ts";
import { localModel } from "./model.ts";

/** A heatmap's model with the widget's defaults. */
export function heatmapModel(more: Partial<Traits>) {
  return localModel<Traits>({
    ...wire([], null, [0, 0]), version: 0, row_labels: [], col_labels: [], row_info: [], col_info: [], row_name: "",
    col_name: "", row_color: "a", col_color: "b", vmin: 0, vmax: 1, auto_range: false, colormap: "magma",
    value_name: "CKA", bar_title: "", chance: null, title: "", row_reasons: [], col_reasons: [], reason: "",
    origin: "top", best_match: false, annotate: false, brackets: true, square: false, compact: false, flag_rows: [], flag_cols: [],
    uncertain_above: 0.03, settled: true, selected: [], hovered: [], theme: "auto", height: 0, ...more,
  });
}

/** The three traits of a matrix; float32 is little-endian on every machine that runs a browser. */
export function wire(values: ArrayLike<number>, stderr: ArrayLike<number> | null, shape: number[]) {
  const view = (numbers: ArrayLike<number>) => new DataView(Float32Array.from(numbers).buffer);
  return { values: view(values), stderr: view(stderr ?? []), shape };
}
