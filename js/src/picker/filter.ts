import type { Tree } from "./tree.ts";

/** What a search found: 1 for a module that matches, and 1 for one to be shown (it, or one below it, matches). */
export interface Found {
  readonly match: Uint8Array;
  readonly shown: Uint8Array;
  readonly count: number;
}

const escape = (text: string) => text.replace(/[.+?^${}()|[\]\\]/g, "\\$&").replace(/\*/g, ".*");

/** Words of a query; each must occur in the dotted name or the class, `*` stands for anything. */
export function pattern(query: string): RegExp[] {
  return query.trim().split(/\s+/).filter(Boolean).map((word) => new RegExp(escape(word), "i"));
}

/** The modules that a query finds; null for an empty query. */
export function search(t: Tree, query: string): Found | null {
  const words = pattern(query);
  if (!words.length) return null;
  const match = new Uint8Array(t.nodes.length);
  const shown = new Uint8Array(t.nodes.length);
  let count = 0;
  for (let i = t.nodes.length - 1; i >= 0; i--) {
    const { name, cls, parent } = t.nodes[i];
    if (words.every((w) => w.test(name) || w.test(cls))) {
      match[i] = shown[i] = 1;
      count++;
    }
    if (shown[i] && parent >= 0) shown[parent] = 1;
  }
  return { match, shown, count };
}

/** The parts of a text that match any of the words, as [start, end) pairs in order. */
export function spots(text: string, words: readonly RegExp[]): [number, number][] {
  return words
    .map((w) => w.exec(text))
    .filter((m) => m !== null && m[0] !== "")
    .map((m): [number, number] => [m!.index, m!.index + m![0].length])
    .sort((a, b) => a[0] - b[0])
    .filter(([start], i, all) => i === 0 || start >= all[i - 1][1]);
}
