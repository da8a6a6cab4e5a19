import type { Cell } from "./traits.ts";

export const PAGE = 10;

/** Where a key leads from a cell; null where the key is not one that moves. Rows move as they look on the screen. */
export function step(
  key: string,
  ctrl: boolean,
  [row, col]: Cell,
  rows: number,
  cols: number,
  bottom: boolean,
): Cell | null {
  const down = bottom ? -1 : 1;
  const r = (v: number): number => Math.max(0, Math.min(rows - 1, v));
  const c = (v: number): number => Math.max(0, Math.min(cols - 1, v));
  const topRow = bottom ? rows - 1 : 0;
  switch (key) {
    case "ArrowUp":
      return [ctrl ? topRow : r(row - down), col];
    case "ArrowDown":
      return [ctrl ? rows - 1 - topRow : r(row + down), col];
    case "ArrowLeft":
      return [row, ctrl ? 0 : c(col - 1)];
    case "ArrowRight":
      return [row, ctrl ? cols - 1 : c(col + 1)];
    case "PageUp":
      return [r(row - down * PAGE), col];
    case "PageDown":
      return [r(row + down * PAGE), col];
    case "Home":
      return [ctrl ? topRow : row, 0];
    case "End":
      return [ctrl ? rows - 1 - topRow : row, cols - 1];
    default:
      return null;
  }
}
