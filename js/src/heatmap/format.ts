/** Decimals that show two significant digits of an error, between 2 and 4. */
export function decimals(error: number): number {
  if (!(error > 0)) return 2;
  return Math.max(2, Math.min(4, 1 - Math.floor(Math.log10(error))));
}

const minus = (text: string) => (/^-0(\.0*)?$/.test(text) ? text.slice(1) : text.replace("-", "\u2212"));

export function fixed(value: number, digits: number): string {
  return minus(value.toFixed(digits));
}

/** `0.713 ± 0.021`, or the value alone where no error is known. */
export function withError(value: number, error: number): string {
  const n = decimals(error);
  return error >= 0 ? `${fixed(value, n)} ± ${error.toFixed(n)}` : fixed(value, error !== error ? 3 : n);
}

/** The short form in a cell: `.71`, `−.03`, `1.0`. */
export function short(value: number): string {
  const text = value.toFixed(2);
  if (/^-?1\.00$/.test(text)) return minus(text.slice(0, -1));
  return minus(text.replace(/^(-?)0\./, "$1.")).replace(/^\u2212\.00$/, ".00");
}

/** Ticks of a colour bar from `lo` to `hi`: the ends and round numbers between them, at most `most`. */
export function ticks(lo: number, hi: number, most: number): number[] {
  const span = hi - lo;
  if (!(span > 0) || most < 2) return [lo];
  const size = 10 ** Math.floor(Math.log10(span / most));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * size).find((s) => span / s <= most) ?? span;
  const out: number[] = [];
  for (let i = Math.ceil(lo / step - 1e-9); i * step <= hi + step * 1e-9; i++) out.push(Number((i * step).toPrecision(12)));
  return out;
}

/** Decimals that tell ticks apart. */
export function tickDigits(steps: readonly number[]): number {
  for (let n = 1; n < 6; n++) if (steps.every((s) => Math.abs(Number(s.toFixed(n)) - s) < 1e-9)) return Math.max(n, 2);
  return 6;
}
