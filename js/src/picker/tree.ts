/** One module, as Python writes it; parents come before their children. */
export interface Module {
  readonly name: string;
  readonly label: string;
  readonly cls: string;
  readonly shape: string;
  readonly params: number;
  readonly calls: number;
  readonly depth: number;
  readonly parent: number;
  readonly status: string;
  readonly alias: string;
  /** Why its output has no features for each sample. */
  readonly why: string;
}

/** The modules with what follows from their order. Index -1 stands for the model itself. */
export interface Tree {
  readonly nodes: readonly Module[];
  readonly index: ReadonlyMap<string, number>;
  /** Last module below each module, itself where there is none. */
  readonly last: Int32Array;
  readonly children: readonly (readonly number[])[];
  readonly tops: readonly number[];
}

export const ROOT = -1;

export function plant(nodes: readonly Module[]): Tree {
  const last = Int32Array.from(nodes, (_, i) => i);
  const children: number[][] = nodes.map(() => []);
  const tops: number[] = [];
  for (let i = nodes.length - 1; i >= 0; i--) {
    const { parent } = nodes[i];
    if (parent >= 0 && parent < i) {
      children[parent].push(i);
      last[parent] = Math.max(last[parent], last[i]);
    } else tops.push(i);
  }
  children.forEach((c) => c.reverse());
  tops.reverse();
  return { nodes, index: new Map(nodes.map((n, i) => [n.name, i])), last, children, tops };
}

export const childrenOf = (t: Tree, i: number): readonly number[] => (i === ROOT ? t.tops : t.children[i]);
export const lastOf = (t: Tree, i: number): number => (i === ROOT ? t.nodes.length - 1 : t.last[i]);
export const selectable = (n: Module): boolean => n.status === "ran";

/** The module whose output an alias has; the module itself where it is none. */
export function resolve(t: Tree, i: number): number {
  const { status, alias } = t.nodes[i];
  return status === "alias" ? (t.index.get(alias) ?? i) : i;
}

/** One line of the tree on screen. */
export interface Row {
  readonly node: number;
  readonly level: number;
  readonly position: number;
  readonly siblings: number;
}

/** The lines of a tree, its closed branches left out; `shown` narrows it to some modules (1 is shown). */
export function rows(t: Tree, open: (node: number) => boolean, shown: Uint8Array | null): Row[] {
  const out: Row[] = [{ node: ROOT, level: 1, position: 1, siblings: 1 }];
  const walk = (parent: number, level: number) => {
    let kids = childrenOf(t, parent);
    if (shown) kids = kids.filter((k) => shown[k]);
    kids.forEach((node, k) => {
      out.push({ node, level, position: k + 1, siblings: kids.length });
      if (t.children[node].length && open(node)) walk(node, level + 1);
    });
  };
  if (open(ROOT)) walk(ROOT, 2);
  return out;
}

/** Branches to open at first: whole levels, as long as the tree stays within `most` lines. */
export function firstOpen(t: Tree, most: number): Set<number> {
  const open = new Set([ROOT]);
  let level = [...t.tops];
  let lines = 1 + level.length;
  while (level.length) {
    const next = level.flatMap((i) => t.children[i]);
    if (!next.length || lines + next.length > most) break;
    level.forEach((i) => t.children[i].length && open.add(i));
    lines += next.length;
    level = next;
  }
  return open;
}
