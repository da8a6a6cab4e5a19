import type { CellData } from "./cell.ts";
import { block, sameKey } from "./data.ts";
import type { Key, Report } from "./data.ts";
import { angles, classicalMds, MOST } from "./mds.ts";
import { s } from "./svg.ts";

const HEIGHT = 170;
const EDGE = 26;

/** Whether there are more particles than the page can place. */
export function crowded({ key, scores }: CellData): boolean {
  if (!scores) return false;
  return scores.length + (sameKey(key.row, key.col) ? 0 : scores[0].length) > MOST;
}

/** Particles of the row and of the column on one plane, near each other where they are alike; null under three. */
export function coordinates(report: Report, data: CellData): { coords: number[][]; split: number } | null {
  const { row, col } = data.key;
  const between = data.scores;
  if (!between || data.single || crowded(data)) return null;
  const split = between.length;
  const own = (key: Key) => block(report, "scores", { row: key, col: key })!;
  const all = sameKey(row, col)
    ? between
    : [
        ...own(row).map((line, i) => [...line, ...between[i]]),
        ...own(col).map((line, j) => [...between.map((b) => b[j]), ...line]),
      ];
  if (all.length < 3) return null;
  const scores = all.map((line, i) => line.map((v, j) => (i === j && Number.isFinite(v) ? 1 : v)));
  return { coords: classicalMds(angles(scores), 2), split };
}

export interface Mark {
  readonly name: string;
  readonly label: string;
  readonly tone: string;
  readonly diamond: boolean;
}

/** Draws the plane; one unit is as long on both axes, or the picture would invent distances. */
export function planeChart(coords: readonly number[][], marks: readonly Mark[], width: number): SVGSVGElement {
  const known = coords.map((c) => c.every(Number.isFinite));
  const ends = [0, 1].map((k) => {
    const along = coords.filter((_, i) => known[i]).map((c) => c[k]);
    return along.length ? [Math.min(...along), Math.max(...along)] : [0, 0];
  });
  const [midX, midY] = ends.map(([lo, hi]) => (lo + hi) / 2);
  const unit = Math.min((width - 3 * EDGE) / Math.max(ends[0][1] - ends[0][0], 0.02), (HEIGHT - 2 * EDGE) / Math.max(ends[1][1] - ends[1][0], 0.02));
  const place = ([x, y]: readonly number[]) => [width / 2 + (x - midX) * unit, HEIGHT / 2 - (y - midY) * unit];
  const chart = s("svg", { class: "cka-chart cka-plane", width, height: HEIGHT, role: "img", "aria-label": `map of ${marks.length} particles` });
  chart.append(s("rect", { class: "cka-frame", x: 0.5, y: 0.5, width: width - 1, height: HEIGHT - 1, rx: 6 }));
  const places = coords.map(place);
  const named: number[][] = [];
  const order = marks.map((_, i) => i).sort((i, j) => Number(marks[j].tone === "odd") - Number(marks[i].tone === "odd"));
  for (const i of order) {
    if (!known[i]) continue;
    const { tone, diamond, name, label } = marks[i];
    const [x, y] = places[i];
    const at = { class: `cka-dot cka-${tone}` };
    const dot = diamond
      ? s("path", { ...at, d: `M${x} ${y - 5.5}L${x + 5.5} ${y}L${x} ${y + 5.5}L${x - 5.5} ${y}Z` })
      : s("circle", { ...at, cx: x, cy: y, r: 4.5 });
    dot.append(s("title", {}, name));
    chart.append(dot);
    // The odd ones are always named, the others where the name covers neither a name nor a dot.
    const covers = places.some(([u, v], k) => k !== i && u > x + 2 && u < x + 28 && Math.abs(v - y) < 10);
    const crowded = covers || named.some(([u, v]) => Math.abs(u - x) < 26 && Math.abs(v - y) < 12);
    if (crowded && tone !== "odd") continue;
    named.push([x, y]);
    chart.append(s("text", { x: x + 8, y: y + 4 }, label));
  }
  return chart;
}
