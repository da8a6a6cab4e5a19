import { drawMark } from "./bar.ts";
import { cell } from "./grid.ts";
import type { Palette } from "./palette.ts";
import { screenRow, target } from "./scene.ts";
import type { Scene } from "./scene.ts";
import type { Cell } from "./traits.ts";
import { cellRect } from "./view.ts";
import type { Rect } from "./view.ts";

function stroke(ctx: CanvasRenderingContext2D, r: Rect, colour: string, width: number, grow = 0): void {
  ctx.strokeStyle = colour;
  ctx.lineWidth = width;
  const d = width / 2 - grow;
  ctx.strokeRect(r.x + d, r.y + d, Math.max(0, r.w - 2 * d), Math.max(0, r.h - 2 * d));
}

/** What changes with the pointer: crosshair, pinned cell, odd rows and columns, mark on the colour bar. */
export function drawOverlay(ctx: CanvasRenderingContext2D, s: Scene, p: Palette, dpr: number): void {
  const { plot } = s.layout;
  if (!s.grid.rows || !s.grid.cols) return;
  const rect = ([r, c]: Cell) => cellRect(s.view, plot, screenRow(s, r), c, dpr);
  const band = (row: number | null, col: number | null): Rect => {
    const box = rect([row ?? 0, col ?? 0]);
    return {
      x: col === null ? plot.x : box.x,
      w: col === null ? plot.w : box.w,
      y: row === null ? plot.y : box.y,
      h: row === null ? plot.h : box.h,
    };
  };
  ctx.save();
  ctx.beginPath();
  ctx.rect(plot.x - 2, plot.y - 2, plot.w + 4, plot.h + 4);
  ctx.clip();
  for (const r of s.row.flags) if (r < s.grid.rows) stroke(ctx, band(r, null), p.odd, 2);
  for (const c of s.col.flags) if (c < s.grid.cols) stroke(ctx, band(null, c), p.odd, 2);
  const at = target(s);
  if (at) {
    // Light inside dark, so that the crosshair shows on either end of any colour map.
    for (const frame of [band(at[0], null), band(null, at[1])]) {
      stroke(ctx, frame, "rgba(0, 0, 0, 0.4)", 1, 1);
      stroke(ctx, frame, "rgba(190, 196, 206, 0.9)", 1);
    }
    if (s.pointed) {
      stroke(ctx, rect(s.pointed), "#000000", 1, 1);
      stroke(ctx, rect(s.pointed), "#ffffff", 1);
    }
  }
  if (s.pinned) {
    const box = rect(s.pinned);
    const grow = Math.min(box.w, box.h) < 6 ? 2 : 0;
    stroke(ctx, box, "#00e5ff", 2, grow);
    if (grow === 0) stroke(ctx, box, "rgba(0, 0, 0, 0.55)", 0.75, 0.75);
  }
  ctx.restore();
  if (at) drawMark(ctx, s, p, cell(s.grid, at[0], at[1]).value);
}
