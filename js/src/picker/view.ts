import { freshId, h, setAttrs } from "../shared/dom.ts";
import { LINE } from "./line.ts";

/** A scrolling list that holds elements only for the lines in sight; the active line is always among them. */
export interface Window {
  readonly el: HTMLElement;
  readonly id: (at: number) => string;
  /** Draws `count` lines, the whole ones of `height` pixels at most; `make` builds the line at an index. */
  draw(count: number, height: number, active: number, make: (at: number) => HTMLElement): void;
  reveal(at: number): void;
  page(): number;
}

const SPARE = 6;

export function scroller(scrolled: () => void, signal: AbortSignal): Window {
  const stem = freshId("line");
  const id = (at: number) => `${stem}-${at}`;
  const space = h("div", { class: "cka-space", role: "none" });
  const el = h("div", { class: "cka-tree", role: "tree", tabindex: 0 }, space);
  el.addEventListener("scroll", scrolled, { signal, passive: true });
  return {
    el,
    id,
    draw(count, height, active, make) {
      const shown = Math.min(Math.max(1, Math.floor(height / LINE)), count) * LINE;
      el.style.height = `${shown + 2}px`;
      space.style.height = `${count * LINE}px`;
      const first = Math.max(0, Math.floor(el.scrollTop / LINE) - SPARE);
      const last = Math.min(count - 1, Math.ceil((el.scrollTop + shown) / LINE) + SPARE);
      const lines: HTMLElement[] = [];
      if (active >= 0 && active < first) lines.push(make(active));
      for (let at = first; at <= last; at++) lines.push(make(at));
      if (active > last && active < count) lines.push(make(active));
      space.replaceChildren(...lines);
      setAttrs(el, { "aria-activedescendant": active >= 0 && active < count ? id(active) : null });
    },
    reveal(at) {
      const top = at * LINE;
      if (top < el.scrollTop) el.scrollTop = top;
      else if (top + LINE > el.scrollTop + el.clientHeight) el.scrollTop = top + LINE - el.clientHeight;
    },
    page: () => Math.max(1, Math.floor(el.clientHeight / LINE) - 1),
  };
}
