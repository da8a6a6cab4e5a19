import { render } from "./heatmap.ts";
import { lackOf } from "./page/cell.ts";
import { matrix, read, under } from "./page/data.ts";
import type { CellKey, Key, Report } from "./page/data.ts";
import { facts, footer, header, legend, warnings } from "./page/frame.ts";
import { heatmapModel, wire } from "./page/matrix.ts";
import { byChance } from "./page/measures.ts";
import { panel } from "./page/panel.ts";
import type { Names } from "./page/panel.ts";
import { toolbar } from "./page/toolbar.ts";
import type { Choice } from "./page/toolbar.ts";
import { distinct } from "./page/words.ts";
import { h } from "./shared/dom.ts";
import { onChange } from "./shared/model.ts";
import { SLOTS } from "./shared/slots.ts";
import type { Slot } from "./shared/slots.ts";

const VALUE_NAMES = { mean: "", spread: "spread of ", stderr: "standard error of " };
/** Below the first width rows are lower; above the second the drill-down stands beside the heatmap. */
const NARROW = 640;
const WIDE = 900;

/** Fills `root` with the heatmap, its controls and the drill-down of a result. */
export function start(root: HTMLElement, whole: Report): void {
  const { models } = whole;
  let report = whole;
  const short = distinct(models.map((m) => m.name));
  const { measure, row, col, metric, selected: pinned } = report.text.start;
  const choice: Choice = { measure, metric, row, col, best: false, ofData: false, colormap: "magma" };
  let selected: CellKey | null = pinned.length
    ? { row: { model: row, layer: pinned[0] }, col: { model: col, layer: pinned[1] } }
    : null;
  let placing = false;

  const tone = (model: number): Slot => SLOTS[model % SLOTS.length];
  const names = (): Names => ({
    full: ({ model }: Key) => models[model].name,
    short: ({ model }: Key) => short[model],
    tone: ({ model }: Key) => tone(model),
  });

  const head = h("header", {});
  const state = h("div", { class: "cka-state" });
  const stage = h("div", {});
  const note = h("p", { class: "cka-legend" });
  const map = heatmapModel({});
  const drill = panel(() => report, names, (key) => select(key));
  const pin = () => {
    const shown = selected && selected.row.model === choice.row && selected.col.model === choice.col;
    placing = true;
    map.set("selected", shown ? [selected!.row.layer, selected!.col.layer] : []);
    placing = false;
  };
  const select = (key: CellKey | null) => {
    selected = key;
    pin();
    drill.show(key);
  };

  const draw = () => {
    const { row, col, metric } = choice;
    const [rows, cols] = [models[row], models[col]];
    const values = matrix(report, metric, row, col);
    const errors = metric === "mean" ? matrix(report, "stderr", row, col) : null;
    const lack = lackOf(report, metric, row, col);
    const shown = report.text.measures[report.measure];
    const name = VALUE_NAMES[metric] + shown.title;
    const chance = metric === "mean" && shown.chance > 0 ? shown.chance : null;
    // CKA alone, as the field knows it, goes without saying.
    const bare = name === "CKA" && report.text.measures.length === 1;
    head.replaceChildren(...header(report, row, col, tone));
    state.replaceChildren(...facts(report, row, col));
    map.assign({
      row_labels: [...rows.layers], col_labels: [...cols.layers],
      row_info: [...rows.info], col_info: [...cols.info],
      row_reasons: [...rows.reasons], col_reasons: [...cols.reasons], reason: lack,
      row_name: rows.name, col_name: cols.name, row_color: tone(row), col_color: tone(col),
      value_name: name, auto_range: choice.ofData || metric !== "mean",
      bar_title: bare ? "" : chance ? `${name} (${byChance(chance)})` : name, chance,
      colormap: choice.colormap, best_match: choice.best && metric === "mean",
      ...wire(values, errors, [rows.layers.length, cols.layers.length]),
    });
    note.textContent = legend(report, values, row, col, lack);
    pin();
  };
  const fit = () => {
    const rows = models[choice.row].layers.length;
    const least = root.clientWidth < NARROW ? 26 * rows + 130 : 34 * rows + 130;
    // Few rows on a wide page may grow with the window.
    const most = Math.min(Math.max(54 * rows, Math.min(110 * rows, 390)) + 130, window.innerHeight - 190);
    map.set("height", Math.max(Math.min(Math.max(least, 300), 640), root.clientWidth > WIDE ? most : 0));
  };
  const changed = () => {
    report = under(whole, choice.measure);
    fit();
    draw();
    if (selected) drill.show(selected);
  };

  root.className = "cka-root cka-page";
  root.append(
    head,
    state,
    ...warnings(report),
    h("div", { class: "cka-body" }, h("section", { class: "cka-middle", "aria-label": "Heatmap" }, toolbar(report, short, choice, changed), stage, note), drill.el),
    footer(report),
  );
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const retheme = () => {
    const theme = dark.matches ? "dark" : "light";
    root.dataset["theme"] = theme;
    map.set("theme", theme);
    drill.theme(theme);
  };
  dark.addEventListener("change", retheme);
  retheme();

  render({ model: map, el: stage });
  onChange(map, ["selected"], () => {
    if (placing) return;
    const [r, c] = map.get("selected");
    select(r === undefined ? null : { row: { model: choice.row, layer: r }, col: { model: choice.col, layer: c } });
  }, new AbortController().signal);
  addEventListener("resize", fit);
  fit();
  draw();
  drill.show(selected);
}

const [root, data] = ["cka-page", "cka-data"].map((id) => document.getElementById(id));
if (root && data) start(root, read(data.textContent ?? ""));
