import type { CellData, Pair, Within } from "./cell.ts";
import type { Key } from "./data.ts";
import { mean } from "./odd.ts";
import { reach, s } from "./svg.ts";
import { clip, plusMinus, score } from "./words.ts";

const LANE = 46;
const SIDE = 12;
const NAMES = 92;

interface Lane {
  readonly name: string;
  readonly tone: string;
  readonly pairs: readonly Pair[];
  readonly rows: number;
  readonly cols: number;
  readonly title: (pair: Pair) => string;
}

/** Every pair's score as a dot: the cell's own pairs, then those within each ensemble. */
export function pairChart(
  data: CellData,
  inner: readonly Within[],
  nameOf: (key: Key) => string,
  toneOf: (key: Key) => string,
  particles: (key: Key) => number,
  width: number,
): SVGSVGElement {
  const { row, col } = data.key;
  const lane = (name: string, tone: string, pairs: readonly Pair[], r: Key, c: Key): Lane => ({
    name, tone, pairs: pairs.filter((p) => Number.isFinite(p.score)), rows: particles(r), cols: particles(c),
    title: (p) => `${nameOf(r)} #${p.row}, ${nameOf(c)} #${p.col}: ${score(p.score, p.error)} ${plusMinus(p.error)}`.trim(),
  });
  const lanes = [
    lane(inner.length ? "between" : "", data.sameModel ? toneOf(row) : "a", data.pairs, row, col),
    ...inner.map(({ key, pairs }) => lane(nameOf(key), toneOf(key), pairs, key, key)),
  ];
  const left = inner.length ? Math.min(NAMES, width / 4) : SIDE;
  const [low, high] = reach(lanes.flatMap((l) => l.pairs.map((p) => p.score)));
  const x = (v: number) => left + ((v - low) / (high - low)) * (width - left - SIDE - 4);
  const bottom = lanes.length * LANE + 4;
  const ticks = low === 0 ? [0, 0.25, 0.5, 0.75, 1] : [low, 0, 0.5, 1];
  const own = lanes[0].pairs.map((p) => p.score);
  const said = own.length
    ? `${own.length} pair scores from ${score(Math.min(...own))} to ${score(Math.max(...own))}, mean ${score(mean(own))}`
    : "no pair scores";
  const chart = s("svg", { class: "cka-chart", width, height: bottom + 20, role: "img", "aria-label": said });
  for (const t of ticks) {
    chart.append(
      s("line", { class: "cka-grid", x1: x(t), x2: x(t), y1: 4, y2: bottom }),
      s("text", { x: x(t), y: bottom + 15, "text-anchor": "middle" }, score(t)),
    );
  }
  lanes.forEach((l, k) => {
    const top = 4 + k * LANE;
    chart.append(s("line", { class: "cka-base", x1: left, x2: width - SIDE, y1: top + LANE - 0.5, y2: top + LANE - 0.5 }));
    if (l.name) chart.append(s("text", { x: 0, y: top + LANE / 2 + 4, class: k ? `cka-${l.tone}` : null }, clip(l.name, 13)));
    l.pairs.forEach((p, i) => {
      // The row's particle gives the height: a column of dots is one partner. Within an ensemble, an even scatter.
      const share = k || data.sameModel ? (i * 0.618 + 0.25) % 1 : (p.row + 0.5) / l.rows;
      const tone = p.odd ? "cka-odd" : `cka-${l.tone}`;
      const dot = s("circle", { class: `cka-dot ${tone}`, cx: x(p.score), cy: top + 7 + share * (LANE - 15), r: 3.6 });
      dot.append(s("title", {}, l.title(p)));
      chart.append(dot);
    });
  });
  if (Number.isFinite(data.value)) {
    chart.append(s("line", { class: "cka-mean", x1: x(data.value), x2: x(data.value), y1: 4, y2: 4 + LANE }));
  }
  return chart;
}
