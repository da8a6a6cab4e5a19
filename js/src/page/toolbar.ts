import type { Metric, Report } from "./data.ts";
import { freshId, h } from "../shared/dom.ts";
import { clip } from "./words.ts";

/** What the controls say. */
export interface Choice {
  /** By index. */
  measure: number;
  metric: Metric;
  row: number;
  col: number;
  best: boolean;
  ofData: boolean;
  colormap: string;
}

const METRICS: Record<Metric, [label: string, title: string]> = {
  mean: ["mean", "score, averaged over particle pairs"],
  spread: ["spread", "standard deviation over particle pairs"],
  stderr: ["± error", "standard error of the mean, from the number of samples"],
};

/** The controls above the heatmap; `changed` is called after `choice` has been written. */
export function toolbar(report: Report, short: readonly string[], choice: Choice, changed: () => void): HTMLElement {
  const pick = (values: Partial<Choice>) => {
    Object.assign(choice, values);
    changed();
  };
  // Both speak of scores alone.
  const ofScores = (metric: Metric) => (best.disabled = range.querySelector("select")!.disabled = metric !== "mean");
  const best = h("input", { type: "checkbox" });
  best.addEventListener("change", () => pick({ best: best.checked }));
  const range = list("range", [["0–1", ""], ["data", "data"]], "", (v) => pick({ ofData: v !== "" }));
  const metrics = (Object.keys(METRICS) as Metric[]).filter((m) => m !== "spread" || report.matrices.spread);
  const parts: HTMLElement[] = [
    buttons("statistic", metrics.map((m) => [...METRICS[m], m] as const), choice.metric, (metric) => {
      ofScores(metric);
      pick({ metric });
    }),
  ];
  ofScores(choice.metric);
  const titles = report.text.measures.map(({ title }, k) => [title, String(k)] as const);
  if (titles.length > 1) parts.push(list("measure", titles, String(choice.measure), (v) => pick({ measure: Number(v) })));
  const names = report.models.map((m) => m.name);
  if (names.length === 2) {
    const pairs = [[0, 1], [0, 0], [1, 1]] as const;
    const options = pairs.map(([r, c]) =>
      [`${clip(short[r], 13)} × ${clip(short[c], 13)}`, `${names[r]} against ${r === c ? "itself" : names[c]}`, `${r} ${c}`] as const);
    parts.push(buttons("models", options, `${choice.row} ${choice.col}`, (value) => {
      const [row, col] = value.split(" ").map(Number);
      pick({ row, col });
    }));
  } else if (names.length > 2) {
    const options = names.map((name, i) => [clip(name), String(i)] as const);
    parts.push(list("rows", options, String(choice.row), (v) => pick({ row: Number(v) })));
    parts.push(list("columns", options, String(choice.col), (v) => pick({ col: Number(v) })));
  }
  const maps = ["magma", "cividis", "viridis"].map((name) => [name, name] as const);
  const looks = [
    h("label", {}, best, "best match per row"),
    range,
    list("colours", maps, choice.colormap, (colormap) => pick({ colormap })),
  ];
  parts.push(h("div", { class: "cka-push" }, ...looks));
  return h("div", { class: "cka-toolbar" }, ...parts);
}

/** One of a few, all in sight: radio buttons that look like one control. */
function buttons<V extends string>(
  legend: string,
  options: readonly (readonly [label: string, title: string, value: V])[],
  chosen: V,
  pick: (value: V) => void,
): HTMLElement {
  const name = freshId(legend);
  const labels = options.map(([label, title, value]) => {
    const input = h("input", { type: "radio", name, value, checked: value === chosen });
    input.addEventListener("change", () => pick(value));
    return h("label", { title }, input, h("span", {}, label));
  });
  return h("fieldset", { class: "cka-buttons" }, h("legend", { class: "cka-live" }, legend), ...labels);
}

function list(
  label: string,
  options: readonly (readonly [label: string, value: string])[],
  chosen: string,
  pick: (value: string) => void,
): HTMLElement {
  const select = h("select", {}, ...options.map(([text, value]) => h("option", { value, selected: value === chosen }, text)));
  select.addEventListener("change", () => pick(select.value));
  return h("label", {}, label, select);
}
