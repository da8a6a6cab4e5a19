import { step } from "./keys.ts";
import type { PointerActions } from "./pointer.ts";
import { isBottom, screenRow } from "./scene.ts";
import type { Cell } from "./traits.ts";
import { whole, zoom } from "./view.ts";

export interface KeyboardActions extends Pick<PointerActions, "scene" | "look"> {
  /** Goes to a cell: the pin where there is one, else the preview. */
  move(to: Cell): void;
  pin(at: Cell): void;
  release(): void;
}

const NEARER = 1.5;

/** Keys: arrows move, Enter pins, Escape lets go, plus, minus and 0 zoom; none of them reaches the host. */
export function useKeyboard(stage: HTMLElement, actions: KeyboardActions, signal: AbortSignal): void {
  const act = (e: KeyboardEvent): boolean => {
    const s = actions.scene();
    if (!s || !s.grid.rows || !s.grid.cols) return false;
    const ctrl = e.ctrlKey || e.metaKey;
    const { rows, cols } = s.grid;
    // A pointer that rests on some cell does not take the keys from the pin.
    const at = s.pinned ?? s.pointed;
    const from = at ?? ([isBottom(s) ? rows - 1 : 0, 0] as const);
    const to = step(e.key, ctrl, from, rows, cols, isBottom(s));
    const nearer = (factor: number) => {
      const { view } = s;
      const fx = (from[1] + 0.5 - view.left) / view.cols;
      const fy = (screenRow(s, from[0]) + 0.5 - view.top) / view.rows;
      actions.look(zoom(view, s.grid, fx, fy, factor));
    };
    const zooms = !s.options.compact && !ctrl;
    // The first arrow key only shows where one is.
    if (to) actions.move(at ? to : from);
    else if (e.key === "Enter" || e.key === " ") actions.pin(from);
    else if (e.key === "Escape") actions.release();
    else if (zooms && (e.key === "+" || e.key === "=")) nearer(NEARER);
    else if (zooms && (e.key === "-" || e.key === "_")) nearer(1 / NEARER);
    else if (zooms && e.key === "0") actions.look(whole(s.grid));
    else return false;
    return true;
  };
  stage.addEventListener(
    "keydown",
    (e) => {
      if (e.altKey || e.key === "Tab") return;
      if (act(e)) e.preventDefault();
      e.stopPropagation();
    },
    { signal },
  );
}
