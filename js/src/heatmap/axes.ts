import { drawBrackets } from "./brackets.ts";
import { LABEL, shorten, thin } from "./fit.ts";
import type { Measure } from "./fit.ts";
import { GAP } from "./layout.ts";
import { font } from "./palette.ts";
import type { Palette } from "./palette.ts";
import { ruler } from "./ruler.ts";
import type { Ruler } from "./ruler.ts";
import { compactRows, isBottom } from "./scene.ts";
import type { Scene } from "./scene.ts";

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
  labels(ctx, s, p, measure, rows, focus?.[0] ?? -1);
  labels(ctx, s, p, measure, cols, focus?.[1] ?? -1);
  title(ctx, s, p);
  if (s.options.compact) {
    compactName(ctx, s, p, measure);
    return;
  }
  drawBrackets(ctx, s, p, rows);
  drawBrackets(ctx, s, p, cols);
  names(ctx, s, p);
}

function labels(
  ctx: CanvasRenderingContext2D,
  s: Scene,
  p: Palette,
  measure: Measure,
  r: Ruler,
  focus: number,
): void {
  const { plot, rowRoom, colRoom, upright } = s.layout;
  const { axis, flags, color } = r.side;
  const texts = r.row && s.options.compact ? compactRows(r.side) : axis.texts;
  const widest = !r.row && upright ? Math.max(...texts.slice(r.first, r.last + 1).map(measure), 0) + 6 : LABEL;
  const ranked = [...flags, ...axis.starts];
  ctx.font = font(p);
  ctx.textBaseline = "middle";
  for (const i of thin(r.first, r.last, r.pitch, widest, ranked, [focus])) {
    const at = r.at(i);
    if (at < r.from || at > r.from + r.length) continue;
    ctx.fillStyle = flags.has(i) ? p.odd : i === focus || s.options.compact ? p[color] : p.muted;
    if (r.row) {
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
