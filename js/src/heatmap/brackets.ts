import { bracketTexts, shorten } from "./fit.ts";
import type { Span } from "./fit.ts";
import { GAP, LEVEL } from "./layout.ts";
import type { Bracket } from "./names.ts";
import { font } from "./palette.ts";
import type { Palette } from "./palette.ts";
import type { Ruler } from "./ruler.ts";
import type { Scene } from "./scene.ts";

/** Room that a name leaves free at the ends of its bracket, in pixels. */
const ENDS = 4;
/** Half the gap between two brackets. */
const EDGE = 1;
/** A bracket shorter than this is left out. */
const LEAST = 5;

/** The runs of layers under one module along an axis, each with the module's name. */
export function drawBrackets(ctx: CanvasRenderingContext2D, s: Scene, p: Palette, r: Ruler): void {
  const { brackets, levels } = r.side.axis;
  for (let level = 0; level < levels; level++) {
    const shown = brackets.filter((b) => b.level === level);
    const ends = shown.map((b) => extent(r, b));
    ctx.font = font(p, 11.5, 600);
    const measure = (text: string) => ctx.measureText(text).width;
    // A short name of a row's bracket lies, whatever the bracket's height.
    const lies = (text: string) => r.row && measure(text) <= LEVEL - 8;
    const spans = shown.map((b, i): Span => ({
      name: b.name,
      whole: (b.to - b.from + 1) * r.pitch - 2 * EDGE - ENDS,
      seen: ends[i][1] - ends[i][0] - ENDS,
    }));
    const { texts, stem } = bracketTexts(spans, (text) => (lies(text) ? 0 : measure(text)));
    const line = r.row
      ? s.layout.plot.x - GAP - s.layout.rowRoom - 5 - level * LEVEL
      : s.layout.plot.y + s.layout.plot.h + GAP + s.layout.colRoom + 5 + level * LEVEL;
    texts.forEach((text, i) => one(ctx, p, r.row, line, ends[i], text, lies(text)));
    if (stem && !r.row) {
      ctx.font = font(p);
      ctx.fillStyle = p.muted;
      ctx.textAlign = "right";
      ctx.textBaseline = "middle";
      ctx.fillText(shorten(stem, s.layout.plot.x - GAP, measure), s.layout.plot.x - GAP, line + 9);
    }
  }
}

/** Where the part of a bracket that is on screen begins and ends along its axis. */
function extent(r: Ruler, b: Bracket): readonly [number, number] {
  const [lo, hi] = [r.at(b.from), r.at(b.to)].sort((x, y) => x - y);
  return [Math.max(r.from, lo - r.pitch / 2) + EDGE, Math.min(r.from + r.length, hi + r.pitch / 2) - EDGE];
}

function one(
  ctx: CanvasRenderingContext2D,
  p: Palette,
  row: boolean,
  line: number,
  [lo, hi]: readonly [number, number],
  text: string,
  lying: boolean,
): void {
  if (hi - lo < LEAST) return;
  const out = row ? -1 : 1;
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
  if (!text) return;
  ctx.save();
  ctx.font = font(p, 11.5, 600);
  ctx.fillStyle = p.text;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.translate(...point((lo + hi) / 2, line + out * 9));
  if (row && !lying) ctx.rotate(-Math.PI / 2);
  ctx.fillText(text, 0, 0);
  ctx.restore();
}
