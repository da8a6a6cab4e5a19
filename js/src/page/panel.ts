import type { CellData } from "./cell.ts";
import { cellData, oddOf, profile, within } from "./cell.ts";
import type { CellKey, Key, Report } from "./data.ts";
import { sameKey } from "./data.ts";
import { depthChart } from "./depth.ts";
import type { Along } from "./depth.ts";
import { pairChart } from "./dots.ts";
import { heatmapModel, wire } from "./matrix.ts";
import { measureRows, measureTable } from "./measures.ts";
import { MOST, similarityOrder } from "./mds.ts";
import { mean } from "./odd.ts";
import type { OddOne } from "./odd.ts";
import { coordinates, crowded, planeChart } from "./plane.ts";
import { render } from "../heatmap.ts";
import { h } from "../shared/dom.ts";
import type { Slot } from "../shared/slots.ts";
import { clip, plural, plusMinus, score } from "./words.ts";

const MAX_TABLE = 400;
const LIMIT = `this page places up to ${MOST} particles, the explorer in a notebook more`;
/** Particles of one side from which an order says something. */
const FEWEST = 3;

export interface Names {
  readonly full: (key: Key) => string;
  readonly short: (key: Key) => string;
  readonly tone: (key: Key) => Slot;
}

export interface Panel {
  readonly el: HTMLElement;
  show(key: CellKey | null): void;
  theme(name: string): void;
}

/** What lies behind the selected cell: its particles, their scores, the run along the depth. */
export function panel(now: () => Report, names: () => Names, select: (key: CellKey) => void): Panel {
  const head = h("div", { class: "cka-cell" });
  const matrix = h("div", { class: "cka-particles" });
  const sorted = h("input", { type: "checkbox" });
  const sort = h("label", { class: "cka-sort" }, sorted, "ordered by similarity");
  const unsorted = h("div", { class: "cka-muted" }, `not ordered by similarity: ${LIMIT}`);
  const odd = h("div", { role: "status" });
  const rest = h("div", { class: "cka-rest" });
  const el = h("section", { class: "cka-drill", "aria-label": "Behind the selected cell" }, head, matrix, sort, unsorted, odd, rest);
  const model = heatmapModel({ compact: true, annotate: true, brackets: false });
  render({ model, el: matrix });
  let shown: CellKey | null = null;
  let drawn = 0;
  let open = false;

  const charts = () => {
    rest.replaceChildren();
    drawn = rest.clientWidth;
    // While the page is hidden there is no width; its return is a change of size.
    if (shown && drawn) rest.append(...below(now(), cellData(now(), shown), names(), drawn, select));
    const table = rest.querySelector("details");
    if (table) table.open = open;
    table?.addEventListener("toggle", () => (open = table.open));
  };
  const show = (key: CellKey | null) => {
    shown = key;
    const report = now();
    const data = key && cellData(report, key);
    const many = data !== null && !data.single;
    head.replaceChildren(...(data ? title(report, data, names()) : nothing()));
    if (data && report.measures.length > 1) head.append(measureTable(measureRows(report, data.key), report.measure));
    matrix.hidden = !many || !data.scores;
    odd.hidden = !many;
    const most = data?.scores ? Math.max(data.scores.length, data.scores[0].length) : 0;
    sort.hidden = matrix.hidden || most < FEWEST || most > MOST;
    unsorted.hidden = matrix.hidden || most <= MOST;
    model.set("value_name", report.text.measures[report.measure].title);
    if (many && data.scores) model.assign(particleTraits(data, names(), sorted.checked && !sort.hidden));
    odd.replaceChildren(many ? verdict(report, data, names()) : "");
    charts();
  };
  sorted.addEventListener("change", () => show(shown));
  new ResizeObserver(() => {
    if (shown && rest.clientWidth !== drawn) charts();
  }).observe(rest);
  return { el, show, theme: (name) => model.set("theme", name) };
}

function nothing(): HTMLElement[] {
  const how = "Click a cell of the heatmap, or move with the arrow keys and press Enter, to see what lies behind its score.";
  return [h("div", { class: "cka-nothing" }, h("b", {}, "No cell selected"), h("span", {}, how))];
}

function title(report: Report, data: CellData, names: Names): HTMLElement[] {
  const named = (key: Key) => report.models[key.model].layers[key.layer];
  const whole = (key: Key) => `${names.full(key)} ${named(key)}`;
  // A number, as in an `nn.Sequential`, says nothing without its model.
  const layer = (key: Key) =>
    h("b", { class: `cka-${names.tone(key)}`, title: names.full(key) }, /^\d+$/.test(named(key)) ? whole(key) : named(key));
  const both = [data.key.row, data.key.col].map(whole);
  const spoken = both.join(" against ");
  const sure = Number.isFinite(data.error);
  // Of several measures the list below tells it.
  const chance = report.measures.length > 1 ? "" : measureRows(report, data.key)[0].chance;
  const error = Number.isFinite(data.value) ? (sure ? plusMinus(data.error) : "no error bar: too few batches") : "";
  const nulls = `${data.above ? "above chance" : "not above chance"} (null ${score(0, data.chance)} ${plusMinus(data.chance)})`;
  return [
    h("h2", { class: "cka-cell-title", "aria-label": spoken }, layer(data.key.row), h("span", { class: "cka-muted" }, " against "), layer(data.key.col)),
    h(
      "div",
      { class: sure ? "cka-score" : "cka-score cka-unsettled" },
      h("strong", {}, score(data.value, data.error)),
      error && h("span", {}, error),
      !data.single && h("span", {}, plural(data.count, "particle pair")),
    ),
    h("div", { class: "cka-muted", title: data.above ? report.text.chance_note : "" }, data.reason || (Number.isFinite(data.chance) ? nulls : chance)),
  ];
}

function particleTraits(data: CellData, names: Names, sorted: boolean) {
  const { row, col } = data.key;
  const scores = data.scores!;
  const self = sameKey(row, col);
  const judged = data.sameModel ? scores.map((line, i) => line.map((v, j) => (v + scores[j][i]) / 2)) : scores;
  const plain = [scores.map((_, i) => i), scores[0].map((_, j) => j)];
  const [rows, cols] = sorted ? similarityOrder(judged, data.sameModel) : plain;
  const picked = (of: readonly (readonly number[])[]) => rows.flatMap((i) => cols.map((j) => of[i][j]));
  const values = picked(scores.map((line, i) => line.map((v, j) => (self && i === j ? NaN : v))));
  return {
    row_labels: rows.map((i) => `#${i}`),
    col_labels: cols.map((j) => `#${j}`),
    row_name: names.short(row),
    col_name: names.short(col),
    row_color: names.tone(row),
    col_color: names.tone(col),
    flag_rows: oddOf(data, "row").map((i) => rows.indexOf(i)),
    flag_cols: oddOf(data, "col").map((j) => cols.indexOf(j)),
    reason: data.sameModel ? "a particle against itself" : "",
    ...wire(values, data.errors && picked(data.errors), [rows.length, cols.length]),
  };
}

/** The odd particle by name, or what else can be seen. */
function verdict(report: Report, data: CellData, names: Names): Node {
  const callout = (...words: (Node | string)[]) => h("div", { class: "cka-callout" }, ...words);
  if (!data.scores) return callout(report.text.particles_note);
  const { odd, unsure } = data.verdict;
  if (odd.length) {
    const parts = odd.slice(0, 3).map((o) => h("b", {}, `${names.full(data.key[o.axis])} #${o.particle}`));
    const more = odd.length > 3 ? [`${odd.length - 3} more`] : [];
    const all = [...parts, ...more].flatMap((part, i, all) => [i ? (i + 1 === all.length ? " and " : ", ") : "", part]);
    const known = data.pairs.filter((p) => Number.isFinite(p.score));
    const [own, others] = [true, false].map((which) => score(mean(known.filter((p) => p.odd === which).map((p) => p.score))));
    const what = odd.length > 1 ? " stand out" : " is the odd one out";
    return h("div", { class: "cka-callout cka-alarm" }, ...all, `${what}: ${own} where the others have ${others}`);
  }
  if (unsure.length) return callout(unsure.map((one) => last(data, one, names)).join(" "));
  const known = data.pairs.map((p) => p.score).filter(Number.isFinite);
  if (known.length < 3) return document.createTextNode("");
  const [low, high] = [score(Math.min(...known)), score(Math.max(...known))];
  const between = low === high ? `all pairs have ${low}` : `pairs lie between ${low} and ${high}`;
  return callout(`No single particle stands out: ${between}.`);
}

/** What can be seen of the last particle of a side where it is not surely odd. */
function last({ key, scores, sameModel }: CellData, { axis, particle, score: own, others }: OddOne, names: Names): string {
  const name = `${names.full(key[axis])} #${particle}`;
  if ((axis === "row" ? scores! : scores![0]).length > 3) {
    const seen = `${name} agrees least, ${score(own)} where the others have ${score(others)}`;
    return `${seen}; the others differ too much to call it odd.`;
  }
  const [first, second] = [0, 1, 2].filter((i) => i !== particle);
  const seen = sameModel
    ? `#${first} and #${second} agree more with each other than with #${particle}`
    : `${name} agrees less with ${names.full(key[axis === "row" ? "col" : "row"])} than #${first} and #${second} do`;
  return `${seen}; three particles are too few to call one odd.`;
}

function below(
  report: Report,
  data: CellData,
  names: Names,
  width: number,
  select: (key: CellKey) => void,
): HTMLElement[] {
  const wide = width > 620 ? (width - 24) / 2 : width;
  const figure = (heading: string, chart: Node, note = "") =>
    h("figure", {}, h("h3", {}, heading, note && h("span", { class: "cka-muted" }, note)), chart);
  const layer = (key: Key) => report.models[key.model].layers[key.layer];
  const { row, col } = data.key;
  const parts: HTMLElement[] = [];
  if (data.scores && !data.single) {
    const particles = (key: Key) => report.models[key.model].particles;
    const inner = within(report, data);
    parts.push(figure("pair scores", pairChart(data, inner, names.short, names.tone, particles, wide)));
  }
  const along = (held: Key, moving: Key, axis: "row" | "col"): Along => ({
    profile: profile(report, held, moving),
    layers: report.models[moving.model].layers,
    name: names.full(moving),
    tone: names.tone(moving),
    odd: oddOf(data, axis),
    short: names.short(moving),
  });
  const depth = (a: Along, go: (layer: number) => void, more = "") =>
    figure(`along ${a.name}'s depth${more}`, depthChart(a, wide, go));
  const known = (a: Along) => a.profile.mean.some(Number.isFinite);
  const across = along(row, col, "col");
  if (known(across)) parts.push(depth(across, (layer) => select({ row, col: { model: col.model, layer } })));
  const down = along(col, row, "row");
  if (!sameKey(row, col) && known(down)) {
    const other = data.sameModel ? ", the other way" : "";
    parts.push(depth(down, (layer) => select({ row: { model: row.model, layer }, col }), other));
  }
  const map = coordinates(report, data);
  if (map) {
    const other = oddOf(data, "col");
    const first = oddOf(data, "row");
    const marks = map.coords.map((_, i) => {
      const diamond = i >= map.split;
      const [key, particle, flagged] = diamond ? [col, i - map.split, other] : [row, i, first];
      const name = `${names.full(key)} #${particle}${data.sameModel ? `, ${layer(key)}` : ""}`;
      return { name, label: `#${particle}`, tone: flagged.includes(particle) ? "odd" : names.tone(key), diamond };
    });
    const note = sameKey(row, col) ? "near is alike" : `● ${clip(layer(row), 14)}  ◆ ${clip(layer(col), 14)}`;
    parts.push(figure("map of the particles", planeChart(map.coords, marks, wide), note));
  } else if (crowded(data)) {
    parts.push(figure("map of the particles", h("div", { class: "cka-muted" }, `not drawn: ${LIMIT}`)));
  }
  if (data.scores && !data.single) parts.push(table(data, names, report.text.measures[report.measure].title));
  return parts;
}

function table(data: CellData, names: Names, measure: string): HTMLElement {
  const rows = data.pairs.slice(0, MAX_TABLE).map((p) =>
    h(
      "tr",
      { class: p.odd ? "cka-odd-row" : null },
      h("td", {}, `#${p.row}`),
      h("td", {}, `#${p.col}`),
      h("td", {}, `${score(p.score, p.error)} ${plusMinus(p.error)}`.trim()),
    ),
  );
  const head = [names.full(data.key.row), names.full(data.key.col), measure].map((text) => h("th", { scope: "col" }, text));
  const left = data.pairs.length - MAX_TABLE;
  return h(
    "details",
    { class: "cka-table" },
    h("summary", {}, "table of pairs"),
    h(
      "div",
      { tabindex: 0, role: "region", "aria-label": "Table of pairs" },
      h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows)),
    ),
    left > 0 && h("p", { class: "cka-muted" }, `and ${plural(left, "more pair")}`),
  );
}
