import { fixed, withError } from "./format.ts";
import { cell } from "./grid.ts";
import type { Scene, Side } from "./scene.ts";
import { lack, unsure, why } from "./speech.ts";
import type { Cell } from "./traits.ts";
import { h, lower, raise } from "../shared/dom.ts";

function layer(side: Side, i: number): HTMLElement {
  return h(
    "div",
    { class: `cka-tip-layer cka-${side.color}` },
    side.name && h("span", {}, side.name),
    h("span", { class: "cka-tip-name" }, side.full[i]),
    side.info[i] ? h("span", { class: "cka-tip-info" }, side.info[i]) : null,
  );
}

/** Fills the tooltip with a cell: the number with its error, both layers, and the reason where it is undefined. */
export function fillTip(tip: HTMLElement, s: Scene, at: Cell): void {
  const { value, stderr } = cell(s.grid, at[0], at[1]);
  const undef = Number.isNaN(value);
  const shaky = unsure(s, at);
  const note = undef ? why(s, at) : shaky ? lack(s, at) : "";
  const number = undef ? "undefined" : stderr >= 0 ? withError(value, stderr) : fixed(value, shaky ? 2 : 3);
  const best = s.best && s.best[at[0]] === at[1] ? h("span", { class: "cka-tip-note" }, "best match of its row") : null;
  const what = s.options.bar_title || (s.options.value_name === "CKA" ? "" : s.options.value_name);
  const label = what ? h("span", { class: "cka-tip-note" }, what) : null;
  tip.replaceChildren(
    h(
      "div",
      { class: shaky || undef ? "cka-tip-value cka-unsure" : "cka-tip-value" },
      h("span", { class: "cka-tip-number" }, number),
      label,
      note && !undef ? h("span", { class: "cka-tip-note" }, note) : null,
      best,
    ),
    ...(undef && note ? [h("div", { class: "cka-tip-reason" }, note)] : []),
    layer(s.row, at[0]),
    layer(s.col, at[1]),
  );
}

/** Puts the tooltip beside a rectangle of the window, on the side where there is room. */
export function placeTip(tip: HTMLElement, box: DOMRect): void {
  raise(tip);
  const { width, height } = tip.getBoundingClientRect();
  const vw = document.documentElement.clientWidth;
  const vh = window.innerHeight;
  const left = box.right + 14 + width <= vw ? box.right + 14 : box.left - 14 - width;
  const above = box.top - 10 - height;
  const top = above >= 4 ? above : box.bottom + 10;
  tip.style.left = `${Math.round(Math.max(4, Math.min(left, vw - width - 4)))}px`;
  tip.style.top = `${Math.round(Math.max(4, Math.min(top, vh - height - 4)))}px`;
}

export function hideTip(tip: HTMLElement): void {
  lower(tip);
}
