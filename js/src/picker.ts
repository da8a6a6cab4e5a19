import { choosable, mark, ordered, put, range, rowCount, sums } from "./picker/choice.ts";
import type { Sums } from "./picker/choice.ts";
import { pattern, search } from "./picker/filter.ts";
import type { Found } from "./picker/filter.ts";
import { line } from "./picker/line.ts";
import { presetBar } from "./picker/bar.ts";
import { childrenOf, firstOpen, plant, ROOT, rows, selectable } from "./picker/tree.ts";
import type { Row, Tree } from "./picker/tree.ts";
import type { Traits } from "./picker/traits.ts";
import { scroller } from "./picker/view.ts";
import { h, setAttrs } from "./shared/dom.ts";
import { lifetime, onChange, perFrame } from "./shared/model.ts";
import type { Props } from "./shared/model.ts";
import { slotOf } from "./shared/slots.ts";
import { followTheme } from "./shared/theme.ts";

const FIRST_LINES = 26;

/** Draws the tree of any object with the model's four methods; returns what ends the view. */
export function render({ model, el, signal: host }: Props<Traits>): () => void {
  const { signal, end } = lifetime(host);
  let tree: Tree = plant([]);
  let open = new Set<number>();
  let folded = new Set<number>();
  let found: Found | null = null;
  let words: RegExp[] = [];
  let lines: Row[] = [];
  let checked: ReadonlySet<string> = new Set();
  let counts: Sums = sums(tree, checked, null);
  let active = 0;
  let anchor: { node: number; on: boolean } | null = null;

  const isOpen = (node: number) => (found ? !folded.has(node) : open.has(node));
  const scope = () => found?.match ?? null;

  const heading = h("span", { class: "cka-title" });
  const total = h("span", { class: "cka-total", "aria-live": "polite" });
  const input = h("input", {
    type: "search", class: "cka-search", placeholder: "name or class…", spellcheck: "false", autocomplete: "off",
  });
  const status = h("p", { class: "cka-status", role: "status" });
  const note = h("p", { class: "cka-note" });
  const presets = presetBar(
    { tree: () => tree, scope, checked: () => checked, choose: (names) => choose(new Set(names)) },
    signal,
  );
  const list = scroller(() => redraw(), signal);
  const root = h(
    "div",
    { class: "cka-root cka-picker", "data-lm-suppress-shortcuts": "true" },
    h("div", { class: "cka-head" }, h("span", { class: "cka-chip", "aria-hidden": "true" }), heading, total),
    input,
    presets,
    list.el,
    status,
    note,
  );

  const draw = () => {
    const disabled = model.get("disabled");
    const title = model.get("title");
    const has = document.activeElement === list.el || (root.getRootNode() as ShadowRoot).activeElement === list.el;
    list.draw(lines.length, model.get("max_height"), active, (at) => {
      const row = lines[at];
      const { node } = row;
      const n = node === ROOT ? null : tree.nodes[node];
      return line(tree, row, at, {
        id: list.id(at),
        mark: mark(tree, counts, checked, node),
        own: n !== null && selectable(n) && checked.has(n.name),
        choosable: choosable(tree, counts, node),
        open: childrenOf(tree, node).length ? isOpen(node) : null,
        active: has && at === active,
        disabled,
        words,
        title,
      });
    });
  };
  const redraw = perFrame(draw, signal);

  const relist = () => {
    const kept = lines[active]?.node ?? ROOT;
    lines = rows(tree, isOpen, found?.shown ?? null);
    active = Math.max(0, lines.findIndex((r) => r.node === kept));
    recount();
  };
  const recount = () => {
    counts = sums(tree, checked, scope());
    const n = rowCount(tree, checked);
    total.textContent = `${n.toLocaleString("en")} ${n === 1 ? "row" : "rows"}`;
    const modules = tree.nodes.length;
    status.textContent = found ? (found.count ? `${found.count} of ${modules} modules match` : "Nothing matches") : "";
    status.hidden = !found;
    redraw();
  };

  const choose = (next: ReadonlySet<string>) => {
    if (model.get("disabled")) return;
    model.set("checked", ordered(tree, next));
    model.save_changes();
  };
  const toggle = (at: number, how: { shift: boolean; alone: boolean }) => {
    const { node } = lines[at];
    if (!choosable(tree, counts, node)) return;
    const from = anchor ? lines.findIndex((r) => r.node === anchor!.node) : -1;
    if (how.shift && anchor && from >= 0) {
      choose(range(tree, checked, lines, from, at, anchor.on, isOpen, scope()));
      return;
    }
    const alone = how.alone && node !== ROOT && selectable(tree.nodes[node]);
    const on = alone ? !checked.has(tree.nodes[node].name) : mark(tree, counts, checked, node) !== "true";
    anchor = { node, on };
    choose(put(tree, checked, node, on, scope(), alone));
  };
  const fold = (node: number, wide: boolean) => {
    if (found) {
      if (wide) folded.delete(node);
      else folded.add(node);
    } else if (wide) open.add(node);
    else open.delete(node);
    relist();
  };
  const go = (at: number) => {
    active = Math.max(0, Math.min(lines.length - 1, at));
    list.reveal(active);
    redraw();
  };

  list.el.addEventListener(
    "click",
    (e) => {
      const hit = e.target as HTMLElement;
      const at = Number(hit.closest<HTMLElement>(".cka-row")?.dataset["at"] ?? NaN);
      if (Number.isNaN(at)) return;
      active = at;
      const { node } = lines[at];
      if (hit.closest(".cka-fold") && childrenOf(tree, node).length) fold(node, !isOpen(node));
      else toggle(at, { shift: e.shiftKey, alone: e.altKey || e.ctrlKey || e.metaKey });
      redraw();
    },
    { signal },
  );
  list.el.addEventListener(
    "keydown",
    (e) => {
      if (e.key === "Tab" || e.metaKey) return;
      e.stopPropagation();
      const { node, level } = lines[active];
      const parent = () => lines.findLastIndex((r, i) => i < active && r.level === level - 1);
      const kids = childrenOf(tree, node).length > 0;
      const moves: Record<string, () => void> = {
        ArrowDown: () => go(active + 1),
        ArrowUp: () => go(active - 1),
        PageDown: () => go(active + list.page()),
        PageUp: () => go(active - list.page()),
        Home: () => go(0),
        End: () => go(lines.length - 1),
        ArrowRight: () => (kids && !isOpen(node) ? fold(node, true) : kids ? go(active + 1) : undefined),
        ArrowLeft: () => (kids && isOpen(node) ? fold(node, false) : parent() >= 0 ? go(parent()) : undefined),
        " ": () => toggle(active, { shift: e.shiftKey, alone: e.ctrlKey }),
        Enter: () => toggle(active, { shift: false, alone: true }),
      };
      const act = moves[e.key];
      if (act) act();
      else if (e.key.length === 1 && !e.ctrlKey && !e.altKey) typed(e.key);
      else return;
      e.preventDefault();
    },
    { signal },
  );
  /** A letter goes to the next line that starts with it. */
  const typed = (key: string) => {
    const starts = (r: Row) => r.node !== ROOT && tree.nodes[r.node].label.toLowerCase().startsWith(key.toLowerCase());
    const after = lines.findIndex((r, i) => i > active && starts(r));
    const at = after >= 0 ? after : lines.findIndex(starts);
    if (at >= 0) go(at);
  };
  for (const type of ["focus", "blur"]) list.el.addEventListener(type, redraw, { signal });

  const filter = () => {
    words = pattern(input.value);
    found = search(tree, input.value);
    folded = new Set();
    list.el.scrollTop = 0;
    relist();
  };
  input.addEventListener("input", filter, { signal });
  input.addEventListener(
    "keydown",
    (e) => {
      e.stopPropagation();
      if (e.key === "Escape" && input.value) {
        input.value = "";
        filter();
      } else if (e.key === "ArrowDown") {
        list.el.focus();
      } else return;
      e.preventDefault();
    },
    { signal },
  );

  const readNodes = () => {
    const before = tree;
    const names = new Set([...open].map((i) => (i === ROOT ? "" : (before.nodes[i]?.name ?? ""))));
    tree = plant(model.get("nodes"));
    open = before.nodes.length
      ? new Set([ROOT, ...tree.nodes.flatMap((n, i) => (names.has(n.name) ? [i] : []))])
      : firstOpen(tree, FIRST_LINES);
    found = search(tree, input.value);
    relist();
  };
  const readChecked = () => {
    checked = new Set(model.get("checked"));
    recount();
  };
  const readTexts = () => {
    const many = model.get("particles");
    const title = model.get("title");
    heading.textContent = many > 1 ? `${title} ×${many}` : title;
    root.dataset["color"] = slotOf(model.get("color"));
    note.textContent = model.get("note");
    note.hidden = !note.textContent;
    const disabled = model.get("disabled");
    root.classList.toggle("cka-disabled", disabled);
    setAttrs(list.el, {
      "aria-label": `Layers of ${title || "the model"}`,
      "aria-multiselectable": "true",
      "aria-disabled": disabled ? "true" : null,
    });
    setAttrs(input, { "aria-label": `Search the layers of ${title || "the model"} by name or class` });
    for (const b of presets.querySelectorAll<HTMLButtonElement>("button.cka-link")) b.disabled = disabled;
    redraw();
  };

  el.append(root);
  readTexts();
  readNodes();
  readChecked();
  draw();
  const retheme = followTheme(root, () => model.get("theme"), () => {}, signal);
  onChange(model, ["nodes"], readNodes, signal);
  onChange(model, ["checked"], readChecked, signal);
  onChange(model, ["title", "color", "particles", "note", "disabled"], readTexts, signal);
  onChange(model, ["max_height"], redraw, signal);
  onChange(model, ["theme"], retheme, signal);
  signal.addEventListener("abort", () => root.remove());
  return end;
}

export default { render };
