/** A run of neighbouring layers under one module; a run of layers under none has no name. */
export interface Bracket {
  readonly name: string;
  /** 0 is the inner bracket, next to the labels. */
  readonly level: number;
  readonly from: number;
  readonly to: number;
}

export interface Axis {
  /** What stands at each cell. */
  readonly texts: readonly string[];
  readonly brackets: readonly Bracket[];
  /** Where groups begin, outer ones first, those without a bracket too: labels that are kept before others. */
  readonly starts: readonly number[];
  readonly levels: number;
  /** The prefix that all names share; it belongs to the axis, not to a bracket. */
  readonly common: string;
}

interface Group {
  readonly path: readonly string[];
  readonly from: number;
  readonly to: number;
}

/** Inner brackets pay when a group holds this many layers. */
const WORTH = 3;

function sharedPrefix(names: readonly (readonly string[])[]): number {
  const [first, ...rest] = names;
  let n = 0;
  while (n < first.length - 1 && rest.every((p) => p.length > n + 1 && p[n] === first[n])) n++;
  return n;
}

/** Runs of equal components at `depth`; a chain of only children (encoder.layer) makes one group. */
function groups(parts: readonly (readonly string[])[], from: number, to: number, depth: number): Group[] {
  const out: Group[] = [];
  for (let i = from; i <= to; ) {
    const key = parts[i][depth];
    let j = i;
    while (j < to && key !== undefined && parts[j + 1][depth] === key) j++;
    if (j > i) {
      const shared = sharedPrefix(parts.slice(i, j + 1).map((p) => p.slice(depth)));
      const length = Math.max(1, shared);
      out.push({ path: parts[i].slice(0, depth + length), from: i, to: j });
    }
    i = j + 1;
  }
  return out;
}

/** Labels and at most `most` levels of brackets of an axis, from the full dotted names in order. */
export function axis(names: readonly string[], most = 2): Axis {
  const parts = names.map((name) => name.split("."));
  if (names.length < 2) return { texts: parts.map((p) => p[p.length - 1]), brackets: [], starts: [], levels: 0, common: "" };
  const start = sharedPrefix(parts);
  const outer = most > 0 ? groups(parts, 0, names.length - 1, start) : [];
  const inner = outer.map((g) => groups(parts, g.from, g.to, g.path.length));
  const all = inner.flat();
  const two = most > 1 && all.length > 1 && all.some((n) => n.to - n.from + 1 >= WORTH);

  const prefix = new Int32Array(names.length).fill(start);
  const brackets: Bracket[] = [];
  const claim = (g: Group, level: number, above: number) => {
    brackets.push({ name: g.path.slice(above).join("."), level, from: g.from, to: g.to });
    prefix.fill(g.path.length, g.from, g.to + 1);
  };
  outer.forEach((g, i) => {
    claim(g, two ? 1 : 0, start);
    if (two) inner[i].forEach((n) => claim(n, 0, g.path.length));
  });
  if (outer.length) brackets.push(...nameless(outer, names.length, two ? 1 : 0));
  const texts = parts.map((p, i) => p.slice(prefix[i]).join(".") || p[p.length - 1]);
  const starts = [...outer, ...brackets, ...all].map((g) => g.from);
  return { texts, brackets, starts, levels: outer.length ? (two ? 2 : 1) : 0, common: parts[0].slice(0, start).join(".") };
}

function nameless(taken: readonly Group[], count: number, level: number): Bracket[] {
  const out: Bracket[] = [];
  let from = 0;
  for (const g of [...taken, { from: count, to: count }]) {
    if (g.from - from > 1) out.push({ name: "", level, from, to: g.from - 1 });
    from = g.to + 1;
  }
  return out;
}
