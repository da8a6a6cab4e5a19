import { css, rgb } from "./colour.ts";
import { fixed, tickDigits, ticks } from "./format.ts";
import { font } from "./palette.ts";
import type { Palette } from "./palette.ts";
import type { Scene } from "./scene.ts";
import type { Rect } from "./view.ts";

/** The colour bar with its numbers. */
export function drawBar(ctx: CanvasRenderingContext2D, s: Scene, p: Palette): void {
  const { bar } = s.layout;
  if (!bar) return;
  const steps = Math.max(1, Math.round(bar.h));
  for (let i = 0; i < steps; i++) {
    ctx.fillStyle = css(rgb(s.colours, Math.round(255 * (1 - (i + 0.5) / steps))));
    ctx.fillRect(bar.x, bar.y + (i * bar.h) / steps, bar.w, bar.h / steps + 0.6);
  }
  const marks = ticks(s.vmin, s.vmax, Math.max(2, Math.min(4, Math.floor(bar.h / 28))));
  const digits = tickDigits(marks);
  ctx.font = font(p);
  ctx.fillStyle = p.muted;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  for (const m of marks) {
    const y = level(s, m);
    ctx.fillRect(bar.x + bar.w, Math.round(y), 3, 1);
    ctx.fillText(fixed(m, digits), bar.x + bar.w + 6, y);
  }
  if (s.options.chance != null) drawChance(ctx, s, bar, s.options.chance);
  if (s.options.bar_title) {
    const numbers = Math.max(...marks.map((m) => ctx.measureText(fixed(m, digits)).width));
    ctx.save();
    ctx.translate(bar.x + bar.w + numbers + 19, bar.y + bar.h / 2);
    ctx.rotate(-Math.PI / 2);
    ctx.textAlign = "center";
    ctx.fillText(s.options.bar_title, 0, 0, bar.h);
    ctx.restore();
  }
}

/** A line across the bar where chance lies, light between dark, so that it shows on any colour. */
function drawChance(ctx: CanvasRenderingContext2D, s: Scene, bar: Rect, chance: number): void {
  if (chance < s.vmin || chance > s.vmax) return;
  const y = Math.round(level(s, chance));
  ctx.save();
  ctx.fillStyle = "rgba(0, 0, 0, 0.55)";
  ctx.fillRect(bar.x, y - 2, bar.w, 4);
  ctx.fillStyle = "#ffffff";
  ctx.fillRect(bar.x, y - 1, bar.w, 2);
  ctx.restore();
}

function level(s: Scene, value: number): number {
  const bar = s.layout.bar!;
  const t = s.vmax > s.vmin ? (value - s.vmin) / (s.vmax - s.vmin) : 0.5;
  return bar.y + bar.h * (1 - Math.max(0, Math.min(1, t)));
}

/** The mark of the current cell beside the bar. */
export function drawMark(ctx: CanvasRenderingContext2D, s: Scene, p: Palette, value: number): void {
  const { bar } = s.layout;
  if (!bar || Number.isNaN(value)) return;
  const y = level(s, value);
  ctx.fillStyle = p.pick;
  ctx.beginPath();
  ctx.moveTo(bar.x - 1, y);
  ctx.lineTo(bar.x - 8, y - 4.5);
  ctx.lineTo(bar.x - 8, y + 4.5);
  ctx.fill();
}
