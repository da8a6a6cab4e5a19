import { h } from "../shared/dom.ts";
import type { Mark } from "./choice.ts";
import { spots } from "./filter.ts";
import { ROOT, selectable } from "./tree.ts";
import type { Row, Tree } from "./tree.ts";

export interface Look {
  readonly id: string;
  readonly mark: Mark;
  /** Whether the module's own output is chosen, whatever is chosen below it. */
  readonly own: boolean;
  readonly choosable: boolean;
  /** null where there is nothing to open. */
  readonly open: boolean | null;
  readonly active: boolean;
  readonly disabled: boolean;
  readonly words: readonly RegExp[];
  readonly title: string;
}

export const LINE = 25;

/** 1234567 -> "1.2 M". */
export function amount(n: number): string {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]] as const) {
    if (n >= size * 0.995) return `${(n / size).toPrecision(n >= size * 99.5 ? 3 : 2)} ${unit}`;
  }
  return String(n);
}

/** What stands at the right of a module: its shape, whose output it has, or why it has no rows. */
export function aside(t: Tree, i: number): string {
  if (i === ROOT) {
    const total = t.tops.reduce((sum, k) => sum + t.nodes[k].params, 0);
    return total ? amount(total) : "";
  }
  const n = t.nodes[i];
  if (n.status === "alias") return `= ${n.alias}`;
  if (n.status !== "ran") return t.children[i].length && !n.why ? "" : n.status;
  return n.calls > 1 ? `${n.shape} ×${n.calls}` : n.shape;
}

/** The long form for the tooltip of a line. */
export function detail(t: Tree, i: number): string {
  const n = t.nodes[i];
  const parts = [n.name, n.cls];
  if (n.shape) parts.push(n.shape);
  if (n.params) parts.push(`${n.params.toLocaleString("en")} parameters`);
  if (n.calls > 1) parts.push(`called ${n.calls} times: ${n.calls} rows`);
  if (n.status === "alias") parts.push(`the same output as ${n.alias}`);
  else if (n.status !== "ran") parts.push(n.why || n.status);
  return parts.join(" · ");
}

function highlighted(text: string, words: readonly RegExp[]): (Node | string)[] {
  const out: (Node | string)[] = [];
  let done = 0;
  for (const [start, end] of spots(text, words)) {
    out.push(text.slice(done, start), h("mark", {}, text.slice(start, end)));
    done = end;
  }
  out.push(text.slice(done));
  return out;
}

/** One line of the tree as an element. */
export function line(t: Tree, row: Row, at: number, look: Look): HTMLElement {
  const { node } = row;
  const n = node === ROOT ? null : t.nodes[node];
  const faint = n !== null && !look.own && (look.mark === "false" || !selectable(n));
  // A number says nothing: in a narrow picker, too, its class stands beside it.
  const numbered = n !== null && /^\d+$/.test(n.label);
  const classes = ["cka-row", numbered && "cka-numbered", faint && "cka-faint", look.active && "cka-active", !look.choosable && "cka-cannot"];
  return h(
    "div",
    {
      id: look.id,
      role: "treeitem",
      class: classes.filter(Boolean).join(" "),
      style: `top:${at * LINE}px;padding-left:${6 + Math.min(row.level - 1, 12) * 15}px`,
      "data-at": at,
      "aria-level": row.level,
      "aria-posinset": row.position,
      "aria-setsize": row.siblings,
      "aria-expanded": look.open === null ? null : String(look.open),
      "aria-checked": look.mark,
      "aria-disabled": !look.choosable || look.disabled ? "true" : null,
      title: n ? detail(t, node) : look.title,
    },
    h("span", { class: look.open === null ? "cka-fold cka-none" : "cka-fold", "aria-hidden": "true" }),
    h("span", { class: look.own ? "cka-box cka-own" : "cka-box", "aria-hidden": "true" }),
    h("span", { class: "cka-label" }, ...(n ? highlighted(n.label, look.words) : [look.title])),
    n && h("span", { class: "cka-class" }, ...highlighted(n.cls, look.words)),
    h("span", { class: "cka-side" }, aside(t, node)),
  );
}
