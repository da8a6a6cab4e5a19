import type { Scope } from "./choice.ts";
import { resolve, selectable } from "./tree.ts";
import type { Tree } from "./tree.ts";

/** Names of the modules at some indices, aliases replaced by what they stand for, in order and once each. */
function named(t: Tree, indices: readonly number[]): string[] {
  const real = new Set(indices.map((i) => resolve(t, i)).filter((i) => selectable(t.nodes[i])));
  return [...real].sort((a, b) => a - b).map((i) => t.nodes[i].name);
}

function where(t: Tree, scope: Scope, test: (i: number) => boolean): string[] {
  return named(t, t.nodes.map((_, i) => i).filter((i) => (scope === null || scope[i] === 1) && test(i)));
}

export const blocks = (t: Tree, scope: Scope): string[] => where(t, scope, (i) => t.children[i].length > 0);
export const leaves = (t: Tree, scope: Scope): string[] => where(t, scope, (i) => t.children[i].length === 0);
export const all = (t: Tree, scope: Scope): string[] => where(t, scope, () => true);
export const ofClass = (t: Tree, scope: Scope, cls: string): string[] => where(t, scope, (i) => t.nodes[i].cls === cls);
export const atDepth = (t: Tree, scope: Scope, depth: number): string[] =>
  where(t, scope, (i) => t.nodes[i].depth === depth);

/** Every k-th of the chosen names, the first kept. */
export function every(t: Tree, chosen: ReadonlySet<string>, k: number): string[] {
  return t.nodes.filter((n) => chosen.has(n.name)).filter((_, i) => i % k === 0).map((n) => n.name);
}

/** How often each value occurs among the modules that can be chosen, the most frequent first. */
export function tally<V>(t: Tree, scope: Scope, of: (i: number) => V): [V, number][] {
  const counts = new Map<V, number>();
  t.nodes.forEach((_, i) => {
    if ((scope !== null && scope[i] === 0) || !selectable(t.nodes[resolve(t, i)])) return;
    counts.set(of(i), (counts.get(of(i)) ?? 0) + 1);
  });
  return [...counts].sort((a, b) => b[1] - a[1]);
}
