import { number, sameKey, under } from "./data.ts";
import type { CellKey, Report } from "./data.ts";
import { h } from "../shared/dom.ts";
import { plusMinus, score } from "./words.ts";

/** A cell under one measure, as it is written: the table of cases holds it to the notebook's. */
export interface Row {
  readonly title: string;
  readonly value: string;
  /** Empty where chance gives 0, or is not known. */
  readonly chance: string;
  /** Per cent of a track from 0 to 1; null where there is no score. */
  readonly at: number | null;
  readonly tick: number | null;
}

export function measureRow(title: string, value: number, error: number, chance: number): Row {
  const known = Number.isFinite(value);
  return {
    title,
    value: known ? `${score(value, error)} ${plusMinus(error)}`.trim() : "undefined",
    chance: byChance(chance),
    at: known ? percent(value) : null,
    tick: chance > 0 ? percent(chance) : null,
  };
}

/** A measure's value by chance in words, where it is above 0: "by chance .16". */
export const byChance = (chance: number): string =>
  chance > 0 ? `by chance ${String(Number(chance.toPrecision(2))).replace(/^0/, "")}` : "";

const percent = (v: number) => Math.round(1000 * Math.min(Math.max(v, 0), 1)) / 10;

/** A cell under every measure of the page; a layer against itself is 1 whatever chance gives. */
export function measureRows(report: Report, key: CellKey): Row[] {
  const self = sameKey(key.row, key.col) && report.models[key.row.model].particles === 1;
  return report.text.measures.map(({ title, chance }, k) => {
    const one = under(report, k);
    return measureRow(title, number(one, "mean", key), number(one, "stderr", key), self ? 0 : chance);
  });
}

/** The rows as a table, each with its place on a track from 0 to 1; the shown one stands out. */
export function measureTable(rows: readonly Row[], shown: number): HTMLElement {
  const mark = (name: string, at: number | null) => at !== null && h("i", { class: name, style: `left: ${at}%` });
  const line = ({ title, value, chance, at, tick }: Row, k: number) =>
    h(
      "tr",
      { class: k === shown ? "cka-shown" : null },
      h("th", { scope: "row" }, title),
      h("td", { "aria-hidden": "true" }, h("div", { class: "cka-track" }, mark("cka-tick", tick), mark("cka-at", at))),
      h("td", {}, value, chance && h("div", { class: "cka-muted" }, chance)),
    );
  return h("table", { class: "cka-measures", "aria-label": "under every measure" }, h("tbody", {}, ...rows.map(line)));
}
