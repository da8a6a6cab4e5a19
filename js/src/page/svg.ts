type Attrs = Record<string, string | number | null | undefined>;

const SPACE = "http://www.w3.org/2000/svg";

/** An SVG element with attributes and children; strings become text. */
export function s<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attrs: Attrs = {},
  ...children: (Node | string | null)[]
): SVGElementTagNameMap[K] {
  const el = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attrs)) {
    if (value !== null && value !== undefined) el.setAttribute(name, String(value));
  }
  for (const child of children) if (child !== null) el.append(child);
  return el;
}

/** A path through points, broken where a coordinate is undefined. */
export function line(points: readonly (readonly [number, number])[]): string {
  let path = "";
  let pen = false;
  for (const [x, y] of points) {
    const known = Number.isFinite(y);
    if (known) path += `${pen ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = known;
  }
  return path;
}

/** 0 to 1, or as far beyond as the data go: unbiased scores may leave the interval. */
export function reach(values: Iterable<number>): [number, number] {
  let [low, high] = [0, 1];
  for (const v of values) {
    if (v < low) low = v;
    if (v > high) high = v;
  }
  return [low < -0.02 ? Math.floor(low * 10) / 10 : 0, high];
}
