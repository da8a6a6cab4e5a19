export type Theme = "light" | "dark";

/** Relative luminance (0 to 1) of a CSS colour such as `rgb(1, 2, 3)`; null where it is see-through. */
export function luminance(css: string): number | null {
  const parts = css.match(/[\d.]+/g)?.map(Number);
  if (!css.startsWith("rgb") || !parts || parts.length < 3 || (parts.length > 3 && parts[3] < 0.5)) return null;
  const [r, g, b] = parts.map((v) => {
    const s = v / 255;
    return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** The host's theme: JupyterLab, VS Code, Colab and marimo say it; else the page behind, else the system. */
export function hostTheme(el: HTMLElement): Theme {
  const { body, documentElement: html } = document;
  const jupyter = body.dataset["jpThemeLight"];
  if (jupyter !== undefined) return jupyter === "false" ? "dark" : "light";
  for (const node of [body, html]) {
    const said = [node.getAttribute("theme"), node.dataset["theme"], node.dataset["vscodeThemeKind"], node.className];
    const words = said.join(" ").toLowerCase().split(/[\s]+/);
    if (words.some((w) => w === "dark" || w === "vscode-dark" || w === "vscode-high-contrast")) return "dark";
    if (words.some((w) => w === "light" || w === "vscode-light")) return "light";
  }
  for (let node: HTMLElement | null = el.parentElement; node; node = node.parentElement) {
    const light = luminance(getComputedStyle(node).backgroundColor);
    if (light !== null) return light < 0.2 ? "dark" : "light";
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/** Keeps `data-theme` of the root right; host colours are used only where the host has the theme that is shown. */
export function followTheme(
  root: HTMLElement,
  wanted: () => string,
  changed: () => void,
  signal: AbortSignal,
): () => void {
  const apply = () => {
    const host = hostTheme(root);
    const want = wanted();
    const theme = want === "light" || want === "dark" ? want : host;
    root.dataset["theme"] = theme;
    root.classList.toggle("cka-host", theme === host);
    changed();
  };
  let late: ReturnType<typeof setTimeout> | undefined;
  const soon = () => {
    apply();
    // Hosts swap the style sheet around the attribute, before or after it.
    clearTimeout(late);
    late = setTimeout(apply, 250);
  };
  const watch = new MutationObserver(soon);
  const attributeFilter = ["data-jp-theme-light", "data-jp-theme-name", "class", "theme", "data-theme", "data-vscode-theme-kind"];
  watch.observe(document.documentElement, { attributes: true, attributeFilter });
  watch.observe(document.body, { attributes: true, attributeFilter });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", soon, { signal });
  // Some hosts render before the element is in the page, where nothing around it can be seen.
  const arrival = new ResizeObserver(() => {
    if (!root.isConnected) return;
    arrival.disconnect();
    apply();
  });
  if (!root.isConnected) arrival.observe(root);
  signal.addEventListener("abort", () => {
    watch.disconnect();
    arrival.disconnect();
    clearTimeout(late);
  });
  apply();
  return apply;
}
