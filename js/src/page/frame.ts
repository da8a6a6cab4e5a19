import type { Report } from "./data.ts";
import { matrix } from "./data.ts";
import { h } from "../shared/dom.ts";
import { count, duration, plural, plusMinus } from "./words.ts";

/** Title and models in their colours. */
export function header(report: Report, row: number, col: number, tone: (model: number) => string): HTMLElement[] {
  const chip = (model: number) => {
    const { name, particles } = report.models[model];
    const text = particles > 1 ? `${name} ×${particles}` : name;
    return h("span", { class: `cka-model cka-${tone(model)}` }, h("span", {}, text));
  };
  const other = row === col ? h("span", { class: "cka-muted" }, "itself") : chip(col);
  return [h("h1", {}, report.text.title), chip(row), h("span", { class: "cka-muted" }, "against"), other];
}

/** Samples, batches, largest error bar of the shown matrix; device and estimator. */
export function facts(report: Report, row: number, col: number): HTMLElement[] {
  const { samples, batches, seconds } = report.text;
  const worst = matrix(report, "stderr", row, col).reduce((top, v) => (v > top ? v : top), NaN_FLOOR);
  const error = worst > NaN_FLOOR
    ? h("span", {}, "largest error bar ", h("b", {}, plusMinus(worst)))
    : h("span", {}, "no error bars: too few batches");
  return [
    h("span", {}, h("b", {}, count(samples)), samples === 1 ? " sample" : " samples"),
    h("span", {}, plural(batches, "batch").replace(/batchs$/, "batches")),
    ...(seconds ? [h("span", {}, `took ${duration(seconds)}`)] : []),
    error,
    h("span", { class: "cka-end" }, report.text.measures[report.measure].setting),
  ];
}

const NaN_FLOOR = -1;

/** Why cells are hatched; `lack` is the reason of those between two defined layers. */
export function legend(report: Report, values: Float32Array, row: number, col: number, lack: string): string {
  const hatched = values.reduce((n, v) => n + Number(Number.isNaN(v)), 0);
  if (!hatched) return "";
  const named = new Set<string>();
  for (const model of [row, col]) {
    const { name, layers, reasons } = report.models[model];
    reasons.forEach((reason, i) => reason && named.add(`${name} ${layers[i]}: ${reason}`));
  }
  const some = [...named].slice(0, 3).join("; ") + (named.size > 3 ? "; …" : "");
  return `hatched: ${plural(hatched, "undefined cell")} (${some || lack})`;
}

/** The run's warnings, above all numbers. */
export function warnings(report: Report): HTMLElement[] {
  return report.text.warnings.map((text) => h("p", { class: "cka-warning" }, h("span", { "aria-hidden": "true" }, "⚠"), text));
}

/** How the numbers came about, and what was left out of the page. */
export function footer(report: Report): HTMLElement {
  const { footnote, particles_note: note } = report.text;
  return h("footer", {}, h("div", {}, footnote.join(" · ")), note ? h("div", {}, note) : null);
}
