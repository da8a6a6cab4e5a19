import { lastOf, resolve, ROOT, selectable } from "./tree.ts";
import type { Row, Tree } from "./tree.ts";

export type Mark = "true" | "mixed" | "false";
export type Scope = Uint8Array | null;

/** Running sums over the modules: how many can be chosen and how many are, before each. */
export interface Sums {
  readonly can: Int32Array;
  readonly chosen: Int32Array;
}

const inScope = (scope: Scope, i: number) => scope === null || scope[i] === 1;

export function sums(t: Tree, checked: ReadonlySet<string>, scope: Scope): Sums {
  const can = new Int32Array(t.nodes.length + 1);
  const chosen = new Int32Array(t.nodes.length + 1);
  t.nodes.forEach((n, i) => {
    const counts = selectable(n) && inScope(scope, i);
    can[i + 1] = can[i] + (counts ? 1 : 0);
    chosen[i + 1] = chosen[i] + (counts && checked.has(n.name) ? 1 : 0);
  });
  return { can, chosen };
}

/** The box of a module: its own and all below it chosen, some, or none. */
export function mark(t: Tree, s: Sums, checked: ReadonlySet<string>, i: number): Mark {
  if (i !== ROOT && t.nodes[i].status === "alias") return checked.has(t.nodes[i].alias) ? "true" : "false";
  const [from, to] = [Math.max(i, 0), lastOf(t, i) + 1];
  const chosen = s.chosen[to] - s.chosen[from];
  return chosen === 0 ? "false" : chosen === s.can[to] - s.can[from] ? "true" : "mixed";
}

/** Whether anything can be chosen at or below a module. */
export function choosable(t: Tree, s: Sums, i: number): boolean {
  if (i !== ROOT && t.nodes[i].status === "alias") return resolve(t, i) !== i;
  return s.can[lastOf(t, i) + 1] > s.can[Math.max(i, 0)];
}

/** The choice with a module and all below it put in or out; `alone` leaves those below it as they are. */
export function put(
  t: Tree,
  checked: ReadonlySet<string>,
  i: number,
  on: boolean,
  scope: Scope,
  alone = false,
): Set<string> {
  const next = new Set(checked);
  const set = (k: number) => {
    const n = t.nodes[k];
    if (!selectable(n)) return;
    if (on) next.add(n.name);
    else next.delete(n.name);
  };
  if (i !== ROOT && t.nodes[i].status === "alias") set(resolve(t, i));
  else {
    const to = alone && i !== ROOT ? i : lastOf(t, i);
    for (let k = Math.max(i, 0); k <= to; k++) if (inScope(scope, k)) set(k);
  }
  return next;
}

/** The choice after a Shift-click: all lines between two, closed branches whole, follow the first. */
export function range(
  t: Tree,
  checked: ReadonlySet<string>,
  lines: readonly Row[],
  from: number,
  to: number,
  on: boolean,
  isOpen: (node: number) => boolean,
  scope: Scope,
): Set<string> {
  let next: Set<string> = new Set(checked);
  for (let k = Math.min(from, to); k <= Math.max(from, to); k++) {
    const { node } = lines[k];
    if (node !== ROOT) next = put(t, next, node, on, scope, isOpen(node));
  }
  return next;
}

/** Chosen names in the order of the modules; names that the tree does not have are dropped. */
export function ordered(t: Tree, checked: ReadonlySet<string>): string[] {
  return t.nodes.filter((n) => checked.has(n.name)).map((n) => n.name);
}

/** Rows of the matrix that a choice makes: one for each call of each chosen module. */
export function rowCount(t: Tree, checked: ReadonlySet<string>): number {
  return t.nodes.reduce((sum, n) => (checked.has(n.name) && selectable(n) ? sum + Math.max(1, n.calls) : sum), 0);
}
