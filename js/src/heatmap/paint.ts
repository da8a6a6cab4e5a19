import { index, ink, rgb } from "./colour.ts";
import { short } from "./format.ts";
import { cell, doubt } from "./grid.ts";
import { font } from "./palette.ts";
import type { Palette } from "./palette.ts";
import { pixels } from "./raster.ts";
import { isBottom, screenRow } from "./scene.ts";
import type { Scene } from "./scene.ts";
import { cellRect } from "./view.ts";

/** From this size on, in pixels, an uncertain cell is drawn smaller; below it fades. */
const SHRINKS = 7;
const FADE = 0.7;
/** The widest rim of an uncertain cell, in pixels. */
const RIM = 8;

const pitch = (s: Scene): [number, number] => [s.layout.plot.w / s.view.cols, s.layout.plot.h / s.view.rows];

/** Whether uncertain cells are drawn smaller rather than paler. */
export const shrinks = (s: Scene): boolean => Math.min(...pitch(s)) >= SHRINKS;

/** The matrix as a picture of one pixel a cell, kept until the numbers or their colours change. */
export function raster(s: Scene, p: Palette, onto: HTMLCanvasElement): void {
  const { rows, cols } = s.grid;
  onto.width = Math.max(1, cols);
  onto.height = Math.max(1, rows);
  if (!rows || !cols) return;
  const data = pixels(s.grid, {
    colours: s.colours,
    vmin: s.vmin,
    vmax: s.vmax,
    fade: shrinks(s) ? 0 : FADE,
    limit: s.options.uncertain_above,
    paper: p.paper,
    bottom: isBottom(s),
  });
  onto.getContext("2d")!.putImageData(new ImageData(new Uint8ClampedArray(data.buffer), cols, rows), 0, 0);
}

/** Diagonal lines, as a pattern that keeps its pitch whatever the pixel ratio. */
function hatch(ctx: CanvasRenderingContext2D, colour: string, dpr: number): CanvasPattern {
  const side = Math.round(6 * dpr);
  const tile = document.createElement("canvas");
  tile.width = tile.height = side;
  const t = tile.getContext("2d")!;
  t.strokeStyle = colour;
  t.lineWidth = dpr;
  t.beginPath();
  for (const k of [-side, 0, side]) {
    t.moveTo(k - 1, side + 1);
    t.lineTo(k + side + 1, -1);
  }
  t.stroke();
  const pattern = ctx.createPattern(tile, "repeat")!;
  pattern.setTransform(new DOMMatrix().scale(1 / dpr));
  return pattern;
}

/** The cells: undefined ones hatched, the others coloured, with marks and numbers where they fit. */
export function drawCells(
  ctx: CanvasRenderingContext2D,
  s: Scene,
  p: Palette,
  picture: HTMLCanvasElement,
  dpr: number,
): void {
  const { plot } = s.layout;
  const { view } = s;
  if (!s.grid.rows || !s.grid.cols) return;
  const [cw, ch] = pitch(s);
  const numbered = s.options.annotate && cw >= 25 && ch >= 13;
  ctx.save();
  ctx.beginPath();
  ctx.rect(plot.x, plot.y, plot.w, plot.h);
  ctx.clip();
  ctx.fillStyle = hatch(ctx, p.hatch, dpr);
  ctx.fillRect(plot.x, plot.y, plot.w, plot.h);
  // Cells smaller than a device pixel are averaged; larger ones keep their edges.
  ctx.imageSmoothingEnabled = Math.min(cw, ch) * dpr < 1;
  ctx.imageSmoothingQuality = "high";
  ctx.drawImage(picture, view.left, view.top, view.cols, view.rows, plot.x, plot.y, plot.w, plot.h);
  if (s.options.compact && Math.min(cw, ch) >= 8) gaps(ctx, s, p, dpr);
  if (s.grid.stderr.length && shrinks(s)) shrink(ctx, s, p, dpr, numbered);
  if (s.best) bestMarks(ctx, s, dpr, numbered);
  if (numbered) numbers(ctx, s, p, dpr);
  ctx.restore();
}

/** Covers the rim of uncertain cells: the colour stays true, the cell grows as its error falls. */
function shrink(ctx: CanvasRenderingContext2D, s: Scene, p: Palette, dpr: number, numbered: boolean): void {
  const [r0, r1, c0, c1] = shown(s);
  const { uncertain_above: limit } = s.options;
  ctx.fillStyle = p.bg;
  for (let at = r0; at < r1; at++) {
    const row = screenRow(s, at) * s.grid.cols;
    for (let c = c0; c < c1; c++) {
      const u = doubt(s.grid.stderr[row + c], limit);
      if (u === 0 || Number.isNaN(s.grid.values[row + c])) continue;
      const { x, y, w, h } = cellRect(s.view, s.layout.plot, at, c, dpr);
      const most = Math.min(RIM, 0.3 * Math.min(w, h), numbered ? Math.min(w - 24, h - 13) / 2 : RIM);
      // On whole device pixels, or the colour would shine through between the four bars.
      const d = Math.max(1, Math.round(u * most * dpr)) / dpr;
      ctx.fillRect(x, y, w, d);
      ctx.fillRect(x, y + h - d, w, d);
      ctx.fillRect(x, y + d, d, h - 2 * d);
      ctx.fillRect(x + w - d, y + d, d, h - 2 * d);
    }
  }
}

function gaps(ctx: CanvasRenderingContext2D, s: Scene, p: Palette, dpr: number): void {
  const { plot } = s.layout;
  ctx.fillStyle = p.bg;
  for (let r = 1; r < s.grid.rows; r++) ctx.fillRect(plot.x, cellRect(s.view, plot, r, 0, dpr).y - 0.5, plot.w, 1);
  for (let c = 1; c < s.grid.cols; c++) ctx.fillRect(cellRect(s.view, plot, 0, c, dpr).x - 0.5, plot.y, 1, plot.h);
}

function shown(s: Scene): [r0: number, r1: number, c0: number, c1: number] {
  const { view, grid } = s;
  return [
    Math.floor(view.top),
    Math.min(grid.rows, Math.ceil(view.top + view.rows)),
    Math.floor(view.left),
    Math.min(grid.cols, Math.ceil(view.left + view.cols)),
  ];
}

function bestMarks(ctx: CanvasRenderingContext2D, s: Scene, dpr: number, numbered: boolean): void {
  const [r0, r1] = shown(s);
  const { plot } = s.layout;
  for (let at = r0; at < r1; at++) {
    const col = s.best![screenRow(s, at)];
    if (col < 0) continue;
    const box = cellRect(s.view, plot, at, col, dpr);
    const radius = Math.max(1.1, Math.min(numbered ? 2.5 : 4, Math.min(box.w, box.h) * 0.2));
    const y = numbered ? box.y + radius + 2 : box.y + box.h / 2;
    ctx.beginPath();
    ctx.arc(box.x + box.w / 2, y, radius, 0, 7);
    ctx.fillStyle = "#ffffff";
    ctx.fill();
    ctx.lineWidth = Math.min(1.5, radius * 0.6);
    ctx.strokeStyle = "#000000";
    ctx.stroke();
  }
}

function numbers(ctx: CanvasRenderingContext2D, s: Scene, p: Palette, dpr: number): void {
  const [r0, r1, c0, c1] = shown(s);
  const { plot } = s.layout;
  ctx.font = font(p, 11);
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  for (let at = r0; at < r1; at++) {
    for (let c = c0; c < c1; c++) {
      const { value } = cell(s.grid, screenRow(s, at), c);
      if (Number.isNaN(value)) continue;
      const box = cellRect(s.view, plot, at, c, dpr);
      ctx.fillStyle = ink(rgb(s.colours, index(value, s.vmin, s.vmax)));
      ctx.fillText(short(value), box.x + box.w / 2, box.y + box.h / 2 + 0.5);
    }
  }
}
