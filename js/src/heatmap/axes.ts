import { LABEL, shorten, thin } from "./fit.ts";
import type { Measure } from "./fit.ts";
import { GAP, LEVEL } from "./layout.ts";
import type { Bracket } from "./names.ts";
import { font } from "./palette.ts";
import type { Palette } from "./palette.ts";
import { compactRows, isBottom } from "./scene.ts";
import type { Scene, Side } from "./scene.ts";
import { edge, flip } from "./view.ts";

/** One axis in its own direction: where index i stands, whatever the zoom and the origin. */
interface Ruler {
  readonly side: Side;
  readonly from: number;
  readonly length: number;
  readonly pitch: number;
  readonly first: number;
  readonly last: number;
  at(index: number): number;
}

function ruler(s: Scene, which: "row" | "col"): Ruler {
  const row = which === "row";
  const { plot } = s.layout;
  const [start, shown, from, length, count, bottom] = row
    ? [s.view.top, s.view.rows, plot.y, plot.h, s.grid.rows, isBottom(s)]
    : [s.view.left, s.view.cols, plot.x, plot.w, s.grid.cols, false];
  const ends = [flip(Math.floor(start), count, bottom), flip(Math.min(count, Math.ceil(start + shown)) - 1, count, bottom)];
  return {
    side: row ? s.row : s.col,
    from,
    length,
    pitch: length / shown,
    first: Math.min(...ends),
    last: Math.max(...ends),
    at: (index) => edge(flip(index, count, bottom) + 0.5, start, shown, from, length),
  };
}

/** Labels, brackets and names of both axes. `focus` are the indices whose labels stand in the model's colour. */
export function drawAxes(
  ctx: CanvasRenderingContext2D,
  s: Scene,
  p: Palette,
  measure: Measure,
  focus: readonly [number, number] | null,
): void {
  const rows = ruler(s, "row");
  const cols = ruler(s, "col");
  labels(ctx, s, p, measure, rows, "row", focus?.[0] ?? -1);
  labels(ctx, s, p, measure, cols, "col", focus?.[1] ?? -1);
  title(ctx, s, p);
  if (s.options.compact) {
    compactName(ctx, s, p, measure);
    return;
  }
  for (const b of s.row.axis.brackets) bracket(ctx, s, p, rows, b, "row");
  for (const b of s.col.axis.brackets) bracket(ctx, s, p, cols, b, "col");
  names(ctx, s, p);
}

function labels(
  ctx: CanvasRenderingContext2D,
  s: Scene,
  p: Palette,
  measure: Measure,
  r: Ruler,
  which: "row" | "col",
  focus: number,
): void {
  const { plot, rowRoom, colRoom, upright } = s.layout;
  const { axis, flags, color } = r.side;
  const texts = which === "row" && s.options.compact ? compactRows(r.side) : axis.texts;
  const widest = which === "col" && upright ? Math.max(...texts.slice(r.first, r.last + 1).map(measure), 0) + 6 : LABEL;
  const ranked = [...flags, ...axis.brackets.map((b) => b.from)];
  ctx.font = font(p);
  ctx.textBaseline = "middle";
  for (const i of thin(r.first, r.last, r.pitch, widest, ranked, [focus])) {
    const at = r.at(i);
    if (at < r.from || at > r.from + r.length) continue;
    ctx.fillStyle = flags.has(i) ? p.odd : i === focus || s.options.compact ? p[color] : p.muted;
    if (which === "row") {
      ctx.textAlign = "right";
      ctx.fillText(shorten(texts[i], rowRoom, measure), plot.x - GAP, at);
    } else if (upright) {
      ctx.textAlign = "center";
      ctx.fillText(texts[i], at, plot.y + plot.h + GAP + 6);
    } else {
      ctx.save();
      ctx.translate(at, plot.y + plot.h + GAP);
      ctx.rotate(-Math.PI / 2);
      ctx.textAlign = "right";
      ctx.fillText(shorten(texts[i], colRoom, measure), 0, 0);
      ctx.restore();
    }
  }
}

function bracket(
  ctx: CanvasRenderingContext2D,
  s: Scene,
  p: Palette,
  r: Ruler,
  b: Bracket,
  which: "row" | "col",
): void {
  const ends = [r.at(b.from), r.at(b.to)].sort((x, y) => x - y);
  const lo = Math.max(r.from, ends[0] - r.pitch / 2) + 1;
  const hi = Math.min(r.from + r.length, ends[1] + r.pitch / 2) - 1;
  if (hi - lo < 5) return;
  const { plot, rowRoom, colRoom } = s.layout;
  const row = which === "row";
  // Away from the plot: labels, inner bracket and its name, outer bracket and its name.
  const off = GAP + (row ? rowRoom : colRoom) + 5 + b.level * LEVEL;
  const line = row ? plot.x - off : plot.y + plot.h + off;
  const out = row ? -1 : 1;
  ctx.save();
  // One sum for both axes: u runs along the axis, v away from the plot.
  const point = (u: number, v: number): [number, number] => (row ? [v, u] : [u, v]);
  ctx.strokeStyle = p.muted;
  ctx.lineWidth = 1;
  ctx.beginPath();
  ctx.moveTo(...point(Math.round(lo) + 0.5, Math.round(line - out * 4) + 0.5));
  ctx.lineTo(...point(Math.round(lo) + 0.5, Math.round(line) + 0.5));
  ctx.lineTo(...point(Math.round(hi) - 0.5, Math.round(line) + 0.5));
  ctx.lineTo(...point(Math.round(hi) - 0.5, Math.round(line - out * 4) + 0.5));
  ctx.stroke();
  ctx.font = font(p, 11.5, 600);
  ctx.fillStyle = p.text;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  const [x, y] = point((lo + hi) / 2, line + out * 9);
  const measure = (t: string) => ctx.measureText(t).width;
  const lying = row && measure(b.name) <= LEVEL - 8;
  const room = lying ? (hi - lo > 10 ? LEVEL : 0) : hi - lo - 6;
  const text = shorten(b.name, room, measure);
  ctx.translate(x, y);
  if (row && !lying) ctx.rotate(-Math.PI / 2);
  if (text.length > 4 || text === b.name) ctx.fillText(text, 0, 0);
  ctx.restore();
}

/** The sentence beside an axis: the model, the prefix of all its layers, and where the first layer stands. */
export function axisName(s: Scene, which: "row" | "col"): [string, string] {
  const { name, axis } = which === "row" ? s.row : s.col;
  const first = which === "col" ? "on the left" : isBottom(s) ? "at the bottom" : "on top";
  return [axis.common ? `${name} · ${axis.common}` : name, `(first layer ${first})`];
}

function names(ctx: CanvasRenderingContext2D, s: Scene, p: Palette): void {
  const { plot, rowTitle, colTitle } = s.layout;
  const draw = (which: "row" | "col", x: number, y: number, angle: number, room: number) => {
    const [name, where] = axisName(s, which);
    ctx.save();
    ctx.translate(x, y);
    ctx.rotate(angle);
    ctx.font = font(p, 12.5);
    ctx.fillStyle = p[which === "row" ? s.row.color : s.col.color];
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    const measure = (t: string) => ctx.measureText(t).width;
    const long = `${name}  ${where}`;
    ctx.fillText(measure(long) <= room ? long : shorten(name, room, measure), 0, 0);
    ctx.restore();
  };
  draw("row", rowTitle, plot.y + plot.h / 2, -Math.PI / 2, plot.h + 20);
  draw("col", plot.x + plot.w / 2, colTitle, 0, plot.w + 60);
}

function title(ctx: CanvasRenderingContext2D, s: Scene, p: Palette): void {
  if (!s.options.title) return;
  const x = s.options.compact ? 2 : s.layout.plot.x;
  ctx.font = font(p, 13, 600);
  ctx.fillStyle = p.text;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.fillText(shorten(s.options.title, s.layout.width - x - 4, (t) => ctx.measureText(t).width), x, 12);
}

function compactName(ctx: CanvasRenderingContext2D, s: Scene, p: Palette, measure: Measure): void {
  if (!s.col.name) return;
  const { plot, rowRoom } = s.layout;
  ctx.font = font(p);
  ctx.fillStyle = p[s.col.color];
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  ctx.fillText(shorten(s.col.name, rowRoom, measure), plot.x - GAP, plot.y + plot.h + GAP + 6);
}
