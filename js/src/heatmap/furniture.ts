import { isBottom } from "./scene.ts";
import type { Scene } from "./scene.ts";
import { summary } from "./speech.ts";
import { isWhole } from "./view.ts";
import { freshId, h, setAttrs } from "../shared/dom.ts";

const HINT =
  "Arrow keys move between cells, Enter pins a cell, Escape lets it go, plus and minus zoom, 0 shows the whole matrix.";

/** The elements of one view: canvases below, then what must be an element to be reached and read aloud. */
export interface Furniture {
  readonly root: HTMLElement;
  readonly stage: HTMLElement;
  readonly base: HTMLCanvasElement;
  readonly over: HTMLCanvasElement;
  readonly origin: HTMLButtonElement;
  readonly reset: HTMLButtonElement;
  readonly empty: HTMLElement;
  readonly tip: HTMLElement;
  readonly live: HTMLElement;
}

export function build(): Furniture {
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
  const tip = h("div", { class: "cka-tip", popover: "manual", "aria-hidden": "true", hidden: true });
  const live = h("div", { class: "cka-live", "aria-live": "polite", role: "status" });
  // JupyterLab listens for its shortcuts before the event arrives here; this attribute makes it look away.
  const root = h(
    "div",
    { class: "cka-root cka-heatmap", "data-lm-suppress-shortcuts": "true" },
    stage, origin, reset, empty, tip, live, hint,
  );
  return { root, stage, base, over, origin, reset, empty, tip, live };
}

/** Brings names, buttons and the empty state in line with the scene. */
export function updateControls(ui: Furniture, s: Scene): void {
  const { plot } = s.layout;
  const none = !s.grid.rows || !s.grid.cols;
  ui.stage.hidden = none;
  ui.empty.hidden = !none;
  ui.empty.textContent = s.options.reason || "No scores yet";
  ui.stage.style.height = `${s.layout.height}px`;
  // Where the cells are, for whoever drives the page.
  setAttrs(ui.stage, { "aria-label": summary(s), "data-plot": [plot.x, plot.y, plot.w, plot.h].join(" ") });
  const [where, other] = isBottom(s) ? ["at the bottom", "on top"] : ["on top", "at the bottom"];
  ui.origin.hidden = none || s.options.compact;
  setAttrs(ui.origin, {
    "aria-label": `First layer ${where}: put it ${other}`,
    title: `Put the first layer ${other}`,
    style: `left:${s.layout.rowTitle - 10}px;top:${plot.y}px;width:20px;height:${plot.h}px`,
  });
  updateZoomButton(ui, s);
}

/** Shows the way back where not all of the matrix is on screen. */
export function updateZoomButton(ui: Furniture, s: Scene): void {
  const zoomed = !isWhole(s.view, s.grid);
  const { plot, width } = s.layout;
  ui.reset.hidden = !zoomed;
  ui.stage.classList.toggle("cka-zoomed", zoomed);
  setAttrs(ui.reset, { style: `right:${width - plot.x - plot.w + 6}px;top:${plot.y + 6}px` });
}
