import { drawAxes } from "./heatmap/axes.ts";
import { drawBar } from "./heatmap/bar.ts";
import type { Measure } from "./heatmap/fit.ts";
import { build, updateControls, updateZoomButton } from "./heatmap/furniture.ts";
import { useKeyboard } from "./heatmap/keyboard.ts";
import { drawOverlay } from "./heatmap/overlay.ts";
import { drawCells, raster, shrinks } from "./heatmap/paint.ts";
import { font, palette } from "./heatmap/palette.ts";
import type { Palette } from "./heatmap/palette.ts";
import { usePointer } from "./heatmap/pointer.ts";
import { compose, isBottom, screenRow, target } from "./heatmap/scene.ts";
import type { Scene } from "./heatmap/scene.ts";
import { sentence } from "./heatmap/speech.ts";
import { fillTip, hideTip, placeTip } from "./heatmap/tip.ts";
import { cellOf, DRAWN, sameCell } from "./heatmap/traits.ts";
import type { Cell, Traits } from "./heatmap/traits.ts";
import { cellRect, isWhole, reveal, whole } from "./heatmap/view.ts";
import type { View } from "./heatmap/view.ts";
import { lifetime, onChange, perFrame, throttled } from "./shared/model.ts";
import type { Props } from "./shared/model.ts";
import { followTheme } from "./shared/theme.ts";

const HOVER_MS = 80;
const PIN_MS = 60;

/** Draws the matrix of any object with the model's methods; returns what ends the view. */
export function render({ model, el, signal: host }: Props<Traits>): () => void {
  const { signal, end } = lifetime(host);
  const ui = build();
  const picture = document.createElement("canvas");
  const pen = { base: ui.base.getContext("2d")!, over: ui.over.getContext("2d")! };
  let scene: Scene | null = null;
  let paint: Palette;
  let dpr = 1;
  let stale = { scene: true, pixels: true, shrinks: false };
  /** Whether this view's own pointer or keys made the preview; a linked view may make it too. */
  let pointing = false;

  const widths = new Map<string, number>();
  const measure: Measure = (text) => {
    let w = widths.get(text);
    if (w === undefined) {
      pen.over.font = font(paint);
      widths.set(text, (w = pen.over.measureText(text).width));
    }
    return w;
  };

  // --- drawing: all of it once a frame at most; a moving pointer redraws the upper canvas alone ---
  const fit = (canvas: HTMLCanvasElement, width: number, height: number) => {
    const [w, h] = [Math.round(width * dpr), Math.round(height * dpr)];
    if (canvas.width === w && canvas.height === h) return;
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  };
  const draw = () => {
    const width = Math.floor(ui.root.clientWidth);
    if (!width) return;
    // Drawn while out of the page, where no style can be read.
    if (!paint.text) retheme();
    dpr = window.devicePixelRatio || 1;
    if (stale.scene || !scene || scene.layout.width !== width) {
      scene = compose(model, width, measure, scene);
      stale.pixels = true;
      updateControls(ui, scene);
    }
    const s = scene;
    const { layout } = s;
    fit(ui.base, layout.width, layout.height);
    fit(ui.over, layout.width, layout.height);
    if (stale.pixels || stale.shrinks !== shrinks(s)) raster(s, paint, picture);
    stale = { scene: false, pixels: false, shrinks: shrinks(s) };
    pen.base.setTransform(dpr, 0, 0, dpr, 0, 0);
    pen.base.clearRect(0, 0, layout.width, layout.height);
    drawCells(pen.base, s, paint, picture, dpr);
    drawBar(pen.base, s, paint);
    drawOver();
    ui.stage.dataset["version"] = String(model.get("version"));
    const shown = target(s);
    if (shown && !ui.tip.hidden) showTip(shown);
  };
  const drawOver = () => {
    const s = scene;
    if (!s) return;
    pen.over.setTransform(dpr, 0, 0, dpr, 0, 0);
    pen.over.clearRect(0, 0, s.layout.width, s.layout.height);
    if (!s.grid.rows || !s.grid.cols) return;
    drawAxes(pen.over, s, paint, measure, target(s));
    drawOverlay(pen.over, s, paint, dpr);
  };
  const redraw = perFrame(draw, signal);
  const redrawOver = perFrame(drawOver, signal);
  const again = () => {
    stale.scene = true;
    redraw();
  };

  // --- the preview, the pin and the zoom ---
  const send = (trait: "hovered" | "selected", cell: () => Cell | null | undefined, ms: number) =>
    throttled(
      () => {
        model.set(trait, [...(cell() ?? [])]);
        model.save_changes();
      },
      ms,
      signal,
    );
  const sendHovered = send("hovered", () => scene?.pointed, HOVER_MS);
  const sendPinned = send("selected", () => scene?.pinned, PIN_MS);

  const showTip = (at: Cell) => {
    const s = scene!;
    const box = cellRect(s.view, s.layout.plot, screenRow(s, at[0]), at[1], dpr);
    const stage = ui.stage.getBoundingClientRect();
    ui.tip.hidden = false;
    fillTip(ui.tip, s, at);
    placeTip(ui.tip, new DOMRect(stage.left + box.x, stage.top + box.y, box.w, box.h));
  };
  const clearTip = () => {
    ui.tip.hidden = true;
    hideTip(ui.tip);
  };
  const say = (s: Scene, at: Cell) => {
    ui.live.textContent = sentence(s, at) + (sameCell(at, s.pinned) ? ", pinned" : "");
  };
  const point = (at: Cell | null) => {
    pointing = at !== null;
    if (!at) clearTip();
    if (!scene || sameCell(scene.pointed, at)) return;
    scene.pointed = at;
    if (at) showTip(at);
    redrawOver();
    sendHovered();
  };
  const pin = (at: Cell | null) => {
    if (!scene || sameCell(scene.pinned, at)) return;
    scene.pinned = at;
    redrawOver();
    sendPinned();
    if (at) say(scene, at);
  };
  const look = (view: View) => {
    if (!scene) return;
    scene.view = view;
    updateZoomButton(ui, scene);
    redraw();
  };
  const follow = (s: Scene, at: Cell) => {
    if (!isWhole(s.view, s.grid)) look(reveal(s.view, s.grid, screenRow(s, at[0]), at[1]));
  };

  const mouse = usePointer(ui.stage, { scene: () => scene, point, pin, look }, signal);
  useKeyboard(
    ui.stage,
    {
      scene: () => scene,
      look,
      move(to) {
        const s = scene!;
        follow(s, to);
        if (s.pinned) pin(to);
        point(s.pinned ? null : to);
        showTip(to);
        say(s, to);
      },
      pin(at) {
        pin(at);
        showTip(at);
      },
      release() {
        mouse.disarm();
        pin(null);
        point(null);
        ui.live.textContent = "Let go";
      },
    },
    signal,
  );
  ui.stage.addEventListener("blur", () => point(null), { signal });
  window.addEventListener("scroll", () => ui.tip.hidden || clearTip(), { signal, capture: true, passive: true });
  ui.origin.addEventListener(
    "click",
    () => {
      model.set("origin", scene && isBottom(scene) ? "top" : "bottom");
      model.save_changes();
    },
    { signal },
  );
  ui.reset.addEventListener("click", () => scene && look(whole(scene.grid)), { signal });

  // --- the page and the model ---
  el.append(ui.root);
  const retheme = followTheme(
    ui.root,
    () => model.get("theme"),
    () => {
      paint = palette(ui.root);
      widths.clear();
      again();
    },
    signal,
  );
  const read = (trait: "selected" | "hovered") =>
    scene && cellOf(model.get(trait), scene.grid.rows, scene.grid.cols);
  onChange(model, DRAWN, again, signal);
  onChange(model, ["theme"], retheme, signal);
  onChange(
    model,
    ["selected"],
    () => {
      const at = read("selected");
      if (!scene || sameCell(at, scene.pinned)) return;
      scene.pinned = at;
      if (at) {
        follow(scene, at);
        say(scene, at);
      }
      redrawOver();
    },
    signal,
  );
  onChange(
    model,
    ["hovered"],
    () => {
      if (!scene || pointing) return;
      scene.pointed = read("hovered");
      redrawOver();
    },
    signal,
  );
  const sized = new ResizeObserver(redraw);
  sized.observe(ui.root);
  const sharp = () => {
    redraw();
    const now = matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
    now.addEventListener("change", sharp, { once: true, signal });
  };
  sharp();
  const refit = () => {
    widths.clear();
    again();
  };
  document.fonts?.addEventListener?.("loadingdone", refit, { signal });
  signal.addEventListener("abort", () => {
    sized.disconnect();
    ui.root.remove();
  });
  return end;
}

export default { render };
