import { decimals, fixed } from "./format.ts";
import { cell, doubt } from "./grid.ts";
import type { Scene } from "./scene.ts";
import type { Cell } from "./traits.ts";

/** Why a cell has no number, in the words of the traits; "" where nothing was said. */
export function why(s: Scene, [r, c]: Cell): string {
  const said = [
    [s.row, r],
    [s.col, c],
  ] as const;
  const parts = said
    .map(([side, i]) => (side.reasons[i] ? `${side.full[i]}: ${side.reasons[i]}` : ""))
    .filter((text, i, all) => text && all.indexOf(text) === i);
  return parts.length ? parts.join("; ") : s.options.reason;
}

/** True where the number may still move by more than the limit. */
export function unsure(s: Scene, [r, c]: Cell): boolean {
  const { value, stderr } = cell(s.grid, r, c);
  if (Number.isNaN(value) || !s.grid.stderr.length) return false;
  return doubt(stderr, s.options.uncertain_above) > 0;
}

/** What an unsure number lacks; without an error bar only more batches of a run under way help. */
export function lack(s: Scene, [r, c]: Cell): string {
  if (!Number.isNaN(cell(s.grid, r, c).stderr)) return "not certain yet";
  return s.options.settled ? "no error bar: too few batches" : "no error bar yet";
}

/** "ResNet-8 layer2 vs ResNet-14 layer3: 0.83 plus or minus 0.01". */
export function sentence(s: Scene, at: Cell): string {
  const [r, c] = at;
  const { value, stderr } = cell(s.grid, r, c);
  const names = `${s.row.name} ${s.row.full[r]} vs ${s.col.name} ${s.col.full[c]}`.trim();
  if (Number.isNaN(value)) {
    const reason = why(s, at);
    return `${names}: undefined${reason ? `, ${reason}` : ""}`;
  }
  const n = decimals(stderr);
  const error = stderr >= 0 ? ` plus or minus ${stderr.toFixed(n)}` : "";
  return `${names}: ${fixed(value, n)}${error}${unsure(s, at) ? `, ${lack(s, at)}` : ""}`;
}

/** The name of the whole picture. */
export function summary(s: Scene): string {
  const { rows, cols } = s.grid;
  const what = s.options.title || s.options.value_name;
  if (!rows || !cols) return `${what}: empty`;
  return `${what}, ${s.row.name || "rows"} (${rows} rows) against ${s.col.name || "columns"} (${cols} columns)`;
}
