type Child = Node | string | null | undefined | false;
type Attrs = Record<string, string | number | boolean | null | undefined>;

/** An element with attributes and children; strings become text nodes, never markup. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attrs: Attrs = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const el = document.createElement(tag);
  setAttrs(el, attrs);
  for (const child of children) if (child || child === "") el.append(child);
  return el;
}

/** Sets attributes; null, undefined and false take one away, true leaves it empty. */
export function setAttrs(el: Element, attrs: Attrs): void {
  for (const [name, value] of Object.entries(attrs)) {
    if (value === null || value === undefined || value === false) el.removeAttribute(name);
    else el.setAttribute(name, value === true ? "" : String(value));
  }
}

let serial = 0;

/** An id that no other view on the page has. */
export function freshId(stem: string): string {
  return `cka-${stem}-${Date.now().toString(36)}-${++serial}`;
}

/** Puts an element into the top layer where the browser has one, so that no output area cuts it off. */
export function raise(el: HTMLElement): void {
  if (!el.isConnected) return;
  if (typeof el.showPopover === "function") {
    if (!el.matches(":popover-open")) el.showPopover();
  } else el.style.display = "block";
}

/** Takes a raised element down again. */
export function lower(el: HTMLElement): void {
  if (!el.isConnected) return;
  if (typeof el.hidePopover === "function") {
    if (el.matches(":popover-open")) el.hidePopover();
  } else el.style.display = "none";
}
