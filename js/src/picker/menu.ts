import { freshId, h, lower, raise, setAttrs } from "../shared/dom.ts";

export interface Item {
  readonly text: string;
  readonly count?: number;
  /** `add` where Shift was held: add to the choice, do not replace it. */
  pick(add: boolean): void;
}

/** A link with a menu below it: arrow keys, Home, End, letters, Escape; a click outside closes it. */
export function menuButton(label: string, items: () => Item[], foot: string, signal: AbortSignal): HTMLElement {
  const list = h("div", { class: "cka-menu", role: "menu", popover: "manual", id: freshId("menu"), "aria-label": label });
  const button = h(
    "button",
    { type: "button", class: "cka-link", "aria-haspopup": "menu", "aria-expanded": "false", "aria-controls": list.id },
    label,
    h("span", { class: "cka-caret", "aria-hidden": "true" }),
  );
  let outside: AbortController | undefined;
  list.hidden = true;

  const close = (focus: boolean) => {
    outside?.abort();
    outside = undefined;
    lower(list);
    list.hidden = true;
    setAttrs(button, { "aria-expanded": "false" });
    if (focus) button.focus();
  };
  const open = () => {
    list.replaceChildren(
      ...items().map((item) => {
        const entry = h(
          "button",
          { type: "button", role: "menuitem", tabindex: -1 },
          h("span", {}, item.text),
          item.count === undefined ? null : h("span", { class: "cka-count" }, String(item.count)),
        );
        entry.addEventListener("click", (e) => {
          close(true);
          item.pick(e.shiftKey);
        });
        return entry;
      }),
      ...(foot ? [h("div", { class: "cka-menu-foot", role: "none" }, foot)] : []),
    );
    list.hidden = false;
    raise(list);
    const at = button.getBoundingClientRect();
    const room = window.innerHeight - at.bottom - 12;
    const height = Math.min(list.scrollHeight, 320, Math.max(room, at.top - 12));
    list.style.left = `${Math.max(4, Math.min(at.left, document.documentElement.clientWidth - list.offsetWidth - 8))}px`;
    list.style.top = `${height <= room ? at.bottom + 4 : at.top - height - 6}px`;
    list.style.maxHeight = `${height + 2}px`;
    setAttrs(button, { "aria-expanded": "true" });
    list.querySelector("button")?.focus();
    outside = new AbortController();
    const own = (e: Event) => e.composedPath().some((n) => n === list || n === button);
    const until = { signal: AbortSignal.any([outside.signal, signal]), capture: true };
    document.addEventListener("pointerdown", (e) => own(e) || close(false), until);
    document.addEventListener("scroll", (e) => own(e) || close(false), until);
  };
  button.addEventListener("click", () => (list.hidden ? open() : close(true)));
  button.addEventListener("keydown", (e) => {
    if (e.key !== "ArrowDown" || !list.hidden) return;
    e.preventDefault();
    open();
  });
  list.addEventListener("keydown", (e) => {
    const entries = [...list.querySelectorAll("button")];
    const focused = (list.getRootNode() as Document | ShadowRoot).activeElement;
    const now = entries.findIndex((b) => b === focused);
    const moves: Record<string, number> = {
      ArrowDown: (now + 1) % entries.length,
      ArrowUp: (now - 1 + entries.length) % entries.length,
      Home: 0,
      End: entries.length - 1,
    };
    let to = moves[e.key];
    if (to === undefined && e.key.length === 1 && e.key !== " ") {
      const rest = [...entries.slice(now + 1), ...entries.slice(0, now + 1)];
      const found = rest.find((b) => b.textContent!.toLowerCase().startsWith(e.key.toLowerCase()));
      to = found ? entries.indexOf(found) : now;
    }
    if (e.key === "Escape") close(true);
    else if (e.key === "Tab") close(false);
    else if (to !== undefined) entries[to]?.focus();
    else return;
    if (e.key !== "Tab") e.preventDefault();
    e.stopPropagation();
  });
  return h("span", { class: "cka-menu-holder" }, button, list);
}
