import type { Profile } from "./cell.ts";
import { line, reach, s } from "./svg.ts";
import { clip, plusMinus, score } from "./words.ts";

const HEIGHT = 128;
const LEFT = 30;
const RIGHT = 8;
const TOP = 8;
const KEYS = "the arrow keys in the heatmap go from layer to layer";

export interface Along {
  readonly profile: Profile;
  readonly layers: readonly string[];
  readonly name: string;
  readonly tone: string;
  /** Particles that stand out, with the short name of their model. */
  readonly odd: readonly number[];
  readonly short: string;
}

/** Score against depth: mean and spread of all pairs, a thin line a particle; a click goes to that layer, as arrow keys in the heatmap do. */
export function depthChart(along: Along, width: number, go: (layer: number) => void): SVGSVGElement {
  const { profile, layers, tone } = along;
  const last = layers.length - 1;
  const [low, high] = reach([...profile.mean, ...profile.each.flat()]);
  const x = (i: number) => (last ? LEFT + (i / last) * (width - LEFT - RIGHT) : (LEFT + width - RIGHT) / 2);
  const y = (v: number) => TOP + ((high - v) / (high - low)) * HEIGHT;
  const trace = (values: readonly number[]) => line(values.map((v, i) => [x(i), y(v)] as const));
  const best = profile.mean.reduce((b, v, i) => (v > (profile.mean[b] ?? -Infinity) || !(b >= 0) ? i : b), -1);
  const label = best < 0 ? "no scores" : `highest at ${layers[best]} with ${score(profile.mean[best])}`;
  const chart = s("svg", {
    class: `cka-chart cka-depth cka-${tone}`, width, height: TOP + HEIGHT + 22, role: "img",
    "aria-label": `score along the depth of ${along.name}: ${label}; ${KEYS}`,
  });
  for (const t of [low < 0 ? low : 0, 0.5, 1]) {
    chart.append(
      s("line", { class: "cka-base", x1: LEFT, x2: width - RIGHT, y1: y(t), y2: y(t) }),
      s("text", { x: LEFT - 7, y: y(t) + 4, "text-anchor": "end" }, t.toFixed(1).replace("-", "\u2212")),
    );
  }
  chart.append(...bands(profile, x, y));
  profile.each.forEach((values, i) => {
    if (!along.odd.includes(i)) chart.append(s("path", { class: "cka-each", d: trace(values) }));
  });
  chart.append(s("path", { class: "cka-line", d: trace(profile.mean) }));
  profile.each.forEach((values, i) => {
    if (along.odd.includes(i)) chart.append(s("path", { class: "cka-odd-line", d: trace(values) }));
  });
  const first = along.odd.find((i) => profile.each[i]);
  if (first !== undefined) chart.append(oddName(profile, first, `${along.short} #${first}`, x, y, width));
  const here = profile.mean[profile.moving.layer];
  if (Number.isFinite(here)) chart.append(s("circle", { class: "cka-here", cx: x(profile.moving.layer), cy: y(here), r: 5 }));
  const limit = Math.max(6, Math.floor((width - LEFT) / 2 / 7));
  chart.append(s("text", { x: LEFT, y: TOP + HEIGHT + 16 }, clip(layers[0], limit)));
  if (last) chart.append(s("text", { x: width - RIGHT, y: TOP + HEIGHT + 16, "text-anchor": "end" }, clip(layers[last], limit)));
  const step = last ? (width - LEFT - RIGHT) / last : width - LEFT - RIGHT;
  layers.forEach((name, i) => {
    const spot = s("rect", { class: "cka-spot", x: x(i) - step / 2, y: TOP, width: step, height: HEIGHT });
    spot.append(s("title", {}, `${name}: ${score(profile.mean[i], profile.error[i])} ${plusMinus(profile.error[i])}`.trim()));
    spot.addEventListener("click", () => go(i));
    chart.append(spot);
  });
  return chart;
}

/** Mean plus and minus the width, a piece for each run of defined layers. */
function bands({ mean, width }: Profile, x: (i: number) => number, y: (v: number) => number): SVGPathElement[] {
  const found: SVGPathElement[] = [];
  for (let from = 0; from < mean.length; from++) {
    if (!Number.isFinite(mean[from])) continue;
    let to = from;
    while (Number.isFinite(mean[to + 1])) to++;
    const run = Array.from({ length: to - from + 1 }, (_, k) => from + k);
    const upper = run.map((i) => [x(i), y(mean[i] + width[i])] as const);
    const lower = run.map((i) => [x(i), y(mean[i] - width[i])] as const).reverse();
    found.push(s("path", { class: "cka-band", d: `${line([...upper, ...lower])}Z` }));
    from = to;
  }
  return found;
}

/** The odd particle's name beside its line, where the fewest other lines are and the fall is deep. */
function oddName(
  profile: Profile,
  particle: number,
  name: string,
  x: (i: number) => number,
  y: (v: number) => number,
  width: number,
): SVGTextElement {
  const curves = [profile.mean, ...profile.each].map((values) => values.map(y));
  const own = profile.each[particle].map(y);
  const half = 3.4 * name.length;
  let best = { score: -Infinity, cx: width / 2, cy: TOP + HEIGHT / 2 };
  own.forEach((at, i) => {
    const cx = Math.max(LEFT + half, Math.min(width - RIGHT - half, x(i)));
    for (const cy of [at + 13, at - 13]) {
      if (!(cy > TOP + 4 && cy < TOP + HEIGHT - 4)) continue;
      const clear = Math.min(14, ...curves.map((curve) => clearance(curve, x, cx - half - 2, cx + half + 2, cy)));
      const score = clear + (curves[0][i] < at ? Math.min(20, at - curves[0][i]) / 5 : 0);
      if (score > best.score) best = { score, cx, cy };
    }
  });
  return s("text", { class: "cka-odd-name", x: best.cx, y: best.cy + 4, "text-anchor": "middle" }, name);
}

/** How far a curve stays above or below a height between two places, in pixels. */
function clearance(curve: readonly number[], x: (i: number) => number, from: number, to: number, height: number): number {
  let least = Infinity;
  for (let i = 0; i + 1 < curve.length; i++) {
    const [a, b] = [x(i), x(i + 1)];
    if (b < from || a > to) continue;
    for (const at of [Math.max(a, from), (Math.max(a, from) + Math.min(b, to)) / 2, Math.min(b, to)]) {
      const away = curve[i] + ((at - a) / (b - a)) * (curve[i + 1] - curve[i]) - height;
      if (Number.isFinite(away)) least = Math.min(least, Math.abs(away));
    }
  }
  return least;
}
