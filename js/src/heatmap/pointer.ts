import { screenRow } from "./scene.ts";
import type { Scene } from "./scene.ts";
import type { Cell } from "./traits.ts";
import { hit, isWhole, pan, whole, zoom } from "./view.ts";
import type { View } from "./view.ts";

export interface PointerActions {
  scene(): Scene | null;
  /** The pointer is over a cell, or over none. */
  point(cell: Cell | null): void;
  pin(cell: Cell | null): void;
  look(view: View): void;
}

const DRAG = 4;
/** The second click of a double click comes within this time. */
const DOUBLE_MS = 500;

/** Mouse and touch: hover previews, click pins, drag pans, wheel and pinch zoom, double click resets. */
export function usePointer(stage: HTMLElement, actions: PointerActions, signal: AbortSignal): { disarm(): void } {
  /** After a click inside the wheel zooms without Ctrl, until the pointer leaves. */
  let armed = false;
  const down = new Map<number, { x: number; y: number }>();
  let dragged = false;
  /** The last click, with the pin that stood before the first of its series. */
  let clicked: { at: number; pin: Cell | null } = { at: -Infinity, pin: null };

  const place = (e: { clientX: number; clientY: number }) => {
    const box = stage.getBoundingClientRect();
    return { x: e.clientX - box.left, y: e.clientY - box.top };
  };
  const cellAt = (s: Scene, e: MouseEvent): Cell | null => {
    const { x, y } = place(e);
    const at = hit(s.view, s.grid, s.layout.plot, x, y);
    return at && [screenRow(s, at[0]), at[1]];
  };
  const zoomAt = (s: Scene, e: { clientX: number; clientY: number }, factor: number) => {
    const { plot } = s.layout;
    const { x, y } = place(e);
    const f = (v: number) => Math.max(0, Math.min(1, v));
    actions.look(zoom(s.view, s.grid, f((x - plot.x) / plot.w), f((y - plot.y) / plot.h), factor));
  };

  const on = <K extends keyof HTMLElementEventMap>(type: K, then: (e: HTMLElementEventMap[K]) => void) =>
    stage.addEventListener(type, then, { signal, passive: false });

  on("pointerdown", (e) => {
    const s = actions.scene();
    if (!s || e.button !== 0) return;
    // The release is heard wherever it happens.
    stage.setPointerCapture(e.pointerId);
    down.set(e.pointerId, { x: e.clientX, y: e.clientY });
    dragged = down.size > 1;
  });
  on("pointermove", (e) => {
    const s = actions.scene();
    if (!s) return;
    const from = down.get(e.pointerId);
    if (!from) {
      actions.point(cellAt(s, e));
      return;
    }
    if (down.size === 2) {
      pinch(s, e, from);
    } else if (dragged || Math.hypot(e.clientX - from.x, e.clientY - from.y) > DRAG) {
      dragged = true;
      if (isWhole(s.view, s.grid)) return;
      const { plot } = s.layout;
      const rows = ((from.y - e.clientY) / plot.h) * s.view.rows;
      const cols = ((from.x - e.clientX) / plot.w) * s.view.cols;
      actions.look(pan(s.view, s.grid, rows, cols));
    } else return;
    down.set(e.pointerId, { x: e.clientX, y: e.clientY });
  });

  const pinch = (s: Scene, e: PointerEvent, from: { x: number; y: number }) => {
    const other = [...down].find(([id]) => id !== e.pointerId)![1];
    const before = Math.hypot(from.x - other.x, from.y - other.y);
    const after = Math.hypot(e.clientX - other.x, e.clientY - other.y);
    const middle = { clientX: (e.clientX + other.x) / 2, clientY: (e.clientY + other.y) / 2 };
    if (before > 0 && !s.options.compact) zoomAt(s, middle, after / before);
  };

  const lift = (e: PointerEvent) => {
    const s = actions.scene();
    const click = down.delete(e.pointerId) && !dragged && e.type === "pointerup";
    if (!s || !click) return;
    armed = true;
    const pin = e.timeStamp - clicked.at < DOUBLE_MS ? clicked.pin : s.pinned;
    clicked = { at: e.timeStamp, pin };
    const at = cellAt(s, e);
    if (at) actions.pin(at);
  };
  on("pointerup", lift);
  on("pointercancel", lift);
  on("pointerleave", () => {
    if (down.size) return;
    armed = false;
    actions.point(null);
  });
  on("dblclick", (e) => {
    const s = actions.scene();
    if (!s || isWhole(s.view, s.grid)) return;
    e.preventDefault();
    actions.pin(clicked.pin);
    actions.look(whole(s.grid));
  });
  on("wheel", (e) => {
    const s = actions.scene();
    if (!s || s.options.compact || !(e.ctrlKey || e.metaKey || armed)) return;
    // A wheel turned away from a whole view belongs to the page, unless the browser would zoom it.
    if (e.deltaY > 0 && isWhole(s.view, s.grid) && !e.ctrlKey && !e.metaKey) return;
    e.preventDefault();
    const lines = e.deltaMode === 1 ? 16 : e.deltaMode === 2 ? 400 : 1;
    zoomAt(s, e, Math.exp(-Math.max(-300, Math.min(300, e.deltaY * lines)) * (e.ctrlKey ? 0.004 : 0.002)));
    actions.point(cellAt(actions.scene()!, e));
  });
  return {
    disarm: () => {
      armed = false;
    },
  };
}
