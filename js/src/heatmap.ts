import { drawAxes } from "./heatmap/axes.ts";
import { drawBar } from "./heatmap/bar.ts";
import type { Measure } from "./heatmap/fit.ts";
import { step } from "./heatmap/keys.ts";
import { drawOverlay } from "./heatmap/overlay.ts";
import { drawCells, raster, shrinks } from "./heatmap/paint.ts";
import { font, palette } from "./heatmap/palette.ts";
import type { Palette } from "./heatmap/palette.ts";
import { usePointer } from "./heatmap/pointer.ts";
import { compose, isBottom, screenRow, target } from "./heatmap/scene.ts";
import type { Scene } from "./heatmap/scene.ts";
import { sentence, summary } from "./heatmap/speech.ts";
import { fillTip, hideTip, placeTip } from "./heatmap/tip.ts";
import { cellOf, DRAWN, sameCell } from "./heatmap/traits.ts";
import type { Cell, Traits } from "./heatmap/traits.ts";
import { cellRect, isWhole, reveal, whole, zoom } from "./heatmap/view.ts";
import type { View } from "./heatmap/view.ts";
import { freshId, h, setAttrs } from "./shared/dom.ts";
import { lifetime, onChange, perFrame, throttled } from "./shared/model.ts";
import type { Props } from "./shared/model.ts";
import { followTheme } from "./shared/theme.ts";

const HINT =
  "Arrow keys move between cells, Enter pins a cell, Escape lets it go, plus and minus zoom, 0 shows the whole matrix.";

function build() {
  const hint = h("span", { id: freshId("hint"), class: "cka-live" }, HINT);
  const base = h("canvas", { "aria-hidden": "true" });
  const over = h("canvas", { "aria-hidden": "true", class: "cka-over" });
  const stage = h(
    "div",
    { class: "cka-stage", role: "application", tabindex: 0, "aria-roledescription": "heatmap", "aria-describedby": hint.id },
    base,
    over,
  );
  const origin = h("button", { type: "button", class: "cka-origin" });
  const reset = h("button", { type: "button", class: "cka-reset" }, "show all");
  const empty = h("p", { class: "cka-empty" });
  const tip = h("div", { class: "cka-tip", popover: "manual", "aria-hidden": "true" });
  const live = h("div", { class: "cka-live", "aria-live": "polite", role: "status" });
  // JupyterLab listens for its shortcuts before the event arrives here; this attribute makes it look away.
  const root = h(
    "div",
    { class: "cka-root cka-heatmap", "data-lm-suppress-shortcuts": "true" },
    stage, origin, reset, empty, tip, live, hint,
  );
  return { root, stage, base, over, origin, reset, empty, tip, live };
}

/** Draws the matrix of any object with the model's four methods; returns what ends the view. */
export function render({ model, el, signal: host }: Props<Traits>): () => void {
  const { signal, end } = lifetime(host);
  const ui = build();
  const picture = document.createElement("canvas");
  const pen = { base: ui.base.getContext("2d")!, over: ui.over.getContext("2d")! };
  let scene: Scene | null = null;
  let paint: Palette;
  let dpr = 1;
  let stale = { scene: true, pixels: true, shrinks: false };

  const widths = new Map<string, number>();
  const measure: Measure = (text) => {
    let w = widths.get(text);
    if (w === undefined) {
      pen.over.font = font(paint);
      widths.set(text, (w = pen.over.measureText(text).width));
    }
    return w;
  };

  const fit = (canvas: HTMLCanvasElement, width: number, height: number) => {
    const [w, hgt] = [Math.round(width * dpr), Math.round(height * dpr)];
    if (canvas.width === w && canvas.height === hgt) return;
    canvas.width = w;
    canvas.height = hgt;
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
      stale.pixels ||= true;
      furnish(scene);
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
    if (s.pointed && !ui.tip.hidden) showTip(s.pointed);
  };

  const drawOver = () => {
    const s = scene;
    if (!s) return;
    pen.over.setTransform(dpr, 0, 0, dpr, 0, 0);
    pen.over.clearRect(0, 0, s.layout.width, s.layout.height);
    if (!s.grid.rows || !s.grid.cols) return;
    if (s.options.title) {
      pen.over.font = font(paint, 13, 600);
      pen.over.fillStyle = paint.text;
      pen.over.textAlign = "left";
      pen.over.textBaseline = "middle";
      pen.over.fillText(s.options.title, s.options.compact ? 2 : s.layout.plot.x, 12);
    }
    drawAxes(pen.over, s, paint, measure, target(s));
    drawOverlay(pen.over, s, paint, dpr);
  };

  /** The parts that are elements: names for assistive technology, buttons, the empty state. */
  const furnish = (s: Scene) => {
    const { plot } = s.layout;
    const none = !s.grid.rows || !s.grid.cols;
    ui.stage.hidden = none;
    ui.empty.hidden = !none;
    ui.empty.textContent = s.options.reason || "No scores yet";
    ui.stage.style.height = `${s.layout.height}px`;
    // Where the cells are, for whoever drives the page.
    setAttrs(ui.stage, { "aria-label": summary(s), "data-plot": [plot.x, plot.y, plot.w, plot.h].join(" ") });
    const where = isBottom(s) ? "at the bottom" : "on top";
    const other = isBottom(s) ? "on top" : "at the bottom";
    ui.origin.hidden = none || s.options.compact;
    setAttrs(ui.origin, {
      "aria-label": `First layer ${where}: put it ${other}`,
      title: `Put the first layer ${other}`,
      style: `left:0;top:${plot.y}px;width:20px;height:${plot.h}px`,
    });
    furnishZoom(s);
  };
  const furnishZoom = (s: Scene) => {
    const zoomed = !isWhole(s.view, s.grid);
    ui.reset.hidden = !zoomed;
    ui.stage.classList.toggle("cka-zoomed", zoomed);
    const { plot } = s.layout;
    setAttrs(ui.reset, { style: `right:${s.layout.width - plot.x - plot.w + 6}px;top:${plot.y + 6}px` });
  };

  const redraw = perFrame(draw, signal);
  const redrawOver = perFrame(drawOver, signal);
  const again = () => {
    stale.scene = true;
    redraw();
  };

  const sendHovered = throttled(
    () => {
      model.set("hovered", scene?.pointed ? [...scene.pointed] : []);
      model.save_changes();
    },
    80,
    signal,
  );
  const sendPinned = throttled(
    () => {
      model.set("selected", scene?.pinned ? [...scene.pinned] : []);
      model.save_changes();
    },
    60,
    signal,
  );

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
  const point = (at: Cell | null) => {
    if (!scene || sameCell(scene.pointed, at)) return;
    scene.pointed = at;
    if (at) showTip(at);
    else clearTip();
    redrawOver();
    sendHovered();
  };
  const pin = (at: Cell | null) => {
    if (!scene || sameCell(scene.pinned, at)) return;
    scene.pinned = at;
    redrawOver();
    sendPinned();
    if (at) ui.live.textContent = `${sentence(scene, at)}, pinned`;
  };
  const look = (view: View) => {
    if (!scene) return;
    scene.view = view;
    furnishZoom(scene);
    redraw();
  };
  const hands = usePointer(ui.stage, { scene: () => scene, point, pin, look }, signal);

  /** Arrow keys move the pin where there is one, else the preview. */
  const move = (to: Cell) => {
    const s = scene!;
    if (!isWhole(s.view, s.grid)) look(reveal(s.view, s.grid, screenRow(s, to[0]), to[1]));
    if (s.pinned) pin(to);
    if (!s.pinned || s.pointed) point(to);
    showTip(to);
    ui.live.textContent = sentence(s, to) + (s.pinned ? ", pinned" : "");
  };
  ui.stage.addEventListener(
    "keydown",
    (e) => {
      const s = scene;
      if (!s || e.altKey || e.key === "Tab") return;
      const ctrl = e.ctrlKey || e.metaKey;
      const at = target(s) ?? ([isBottom(s) ? s.grid.rows - 1 : 0, 0] as const);
      const to = step(e.key, ctrl, at, s.grid.rows, s.grid.cols, isBottom(s));
      const centre = () => {
        const { view, grid } = s;
        return [(at[1] + 0.5 - view.left) / view.cols, (screenRow(s, at[0]) + 0.5 - view.top) / view.rows, grid] as const;
      };
      if (to) move(target(s) ? to : at);
      else if (e.key === "Enter" || e.key === " ") {
        pin(at);
        showTip(at);
      } else if (e.key === "Escape") {
        hands.disarm();
        pin(null);
        point(null);
        clearTip();
        ui.live.textContent = "Let go";
      } else if (!s.options.compact && !ctrl && "+=-_".includes(e.key) && e.key.length === 1) {
        const [fx, fy, grid] = centre();
        look(zoom(s.view, grid, fx, fy, "+=".includes(e.key) ? 1.5 : 1 / 1.5));
      } else if (!s.options.compact && !ctrl && e.key === "0") look(whole(s.grid));
      else {
        e.stopPropagation();
        return;
      }
      e.preventDefault();
      e.stopPropagation();
    },
    { signal },
  );
  ui.stage.addEventListener("blur", () => point(null) ?? clearTip(), { signal });
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

  ui.tip.hidden = true;
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
  onChange(model, DRAWN, again, signal);
  onChange(model, ["theme"], retheme, signal);
  onChange(
    model,
    ["selected"],
    () => {
      if (!scene) return;
      const at = cellOf(model.get("selected"), scene.grid.rows, scene.grid.cols);
      if (sameCell(at, scene.pinned)) return;
      scene.pinned = at;
      if (at && !isWhole(scene.view, scene.grid)) {
        look(reveal(scene.view, scene.grid, screenRow(scene, at[0]), at[1]));
      }
      if (at) ui.live.textContent = `${sentence(scene, at)}, pinned`;
      redrawOver();
    },
    signal,
  );
  const sized = new ResizeObserver(redraw);
  sized.observe(ui.root);
  const sharp = () => {
    redraw();
    matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`).addEventListener("change", sharp, { once: true, signal });
  };
  sharp();
  document.fonts?.ready.then(() => {
    widths.clear();
    if (!signal.aborted) again();
  });
  signal.addEventListener("abort", () => {
    sized.disconnect();
    ui.root.remove();
  });
  return end;
}

export default { render };
