import { h } from "../shared/dom.ts";
import type { Scope } from "./choice.ts";
import { menuButton } from "./menu.ts";
import type { Item } from "./menu.ts";
import { all, atDepth, blocks, every, leaves, ofClass, tally } from "./presets.ts";
import type { Tree } from "./tree.ts";

export interface Choosing {
  tree(): Tree;
  /** The modules that a search found; presets choose among them. */
  scope(): Scope;
  checked(): ReadonlySet<string>;
  choose(names: Iterable<string>): void;
}

/** The links above the tree that choose many modules at once. */
export function presetBar(c: Choosing, signal: AbortSignal): HTMLElement {
  /** Without Shift the choice is replaced; within a search only the part that was found is. */
  const take = (names: string[], add: boolean) => {
    const scope = c.scope();
    const { nodes } = c.tree();
    const found = new Set(scope ? nodes.filter((_, i) => scope[i]).map((n) => n.name) : nodes.map((n) => n.name));
    c.choose([...[...c.checked()].filter((name) => add || !found.has(name)), ...names]);
  };
  const link = (text: string, names: () => string[], title: string) => {
    const button = h("button", { type: "button", class: "cka-link", title }, text);
    button.addEventListener("click", (e) => take(names(), e.shiftKey), { signal });
    return button;
  };
  const tallied = <V>(of: (t: Tree, i: number) => V, text: (v: V) => string, names: (v: V) => string[]): Item[] => {
    const t = c.tree();
    return tally(t, c.scope(), (i) => of(t, i)).map(([value, count]) => ({
      text: text(value),
      count,
      pick: (add) => take(names(value), add),
    }));
  };
  const byClass = () =>
    tallied((t, i) => t.nodes[i].cls, (cls) => `all ${cls}`, (cls) => ofClass(c.tree(), c.scope(), cls));
  const byDepth = () =>
    tallied((t, i) => t.nodes[i].depth, (d) => `depth ${d + 1}`, (d) => atDepth(c.tree(), c.scope(), d)).sort((a, b) =>
      a.text.localeCompare(b.text, "en", { numeric: true }),
    );
  const thinned = (): Item[] =>
    [2, 3, 4, 5, 10].map((k) => {
      const from = c.checked().size ? c.checked() : new Set(all(c.tree(), c.scope()));
      const names = every(c.tree(), from, k);
      return { text: `every ${k}${k === 2 ? "nd" : k === 3 ? "rd" : "th"}`, count: names.length, pick: () => c.choose(names) };
    });
  const shift = "Shift adds to the choice";
  return h(
    "div",
    { class: "cka-presets", role: "group", "aria-label": "Choose many layers" },
    link("blocks", () => blocks(c.tree(), c.scope()), "Modules that hold other modules"),
    link("leaves", () => leaves(c.tree(), c.scope()), "Modules that hold no others"),
    link("all", () => all(c.tree(), c.scope()), "Every module that ran"),
    link("none", () => [], "Let go of all"),
    menuButton("by class", byClass, shift, signal),
    menuButton("by depth", byDepth, shift, signal),
    menuButton("thin out", thinned, "of the layers chosen now", signal),
  );
}
