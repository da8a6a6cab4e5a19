import type { Table } from "./data.ts";

/** Greatest share of matrices of particles of one kind in which one is named all the same. */
const ALPHA = 0.05;
/** Smallest fall of a particle's score that is worth a word. */
const MIN_GAP = 0.1;

/** Scores below are as good as none: their logarithms say nothing. */
const FLOOR = 0.02;

/** A particle that agrees with its partners less than the other particles do. */
export interface OddOne {
  readonly axis: "row" | "col";
  readonly particle: number;
  /** Mean score of its own pairs, and of the pairs without it. */
  readonly score: number;
  readonly others: number;
}

/** What a particle x particle matrix says of single particles, the furthest first. */
export interface Verdict {
  readonly odd: OddOne[];
  /** The last of a side, where it is clearly lower, but chance may have made it so. */
  readonly unsure: OddOne[];
}

export const mean = (values: readonly number[]): number => values.reduce((sum, v) => sum + v, 0) / values.length;

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

const finite = (values: readonly number[]) => values.filter(Number.isFinite);
const transposed = (table: Table): number[][] => (table[0] ?? []).map((_, j) => table.map((line) => line[j]));
const offDiagonal = (table: Table): number[][] => table.map((line, i) => line.map((v, j) => (i === j ? NaN : v)));

/**
 * Tells particles that stand out from those that merely come last: the rule of the notebook's drill-down (`judge` in
 * particle_stats.py has it in words and formulas), held by a table of cases that both are tested on. With `same` the
 * axes are the same particles; `within` are the scores inside the rows' and inside the columns' ensemble.
 */
export function judge(
  scores: Table,
  same: boolean,
  errors: Table | null,
  within: readonly (Table | null)[] = [null, null],
): Verdict {
  const table = same ? offDiagonal(scores) : scores;
  const doubts = errors && (same ? offDiagonal(errors) : errors);
  const found: Verdict = { odd: [], unsure: [] };
  const sides = [
    { axis: "row" as const, table, doubts, inner: within[0] },
    { axis: "col" as const, table: transposed(table), doubts: doubts && transposed(doubts), inner: within[1] },
  ].filter((side, k) => side.table.length >= 3 && !(same && k));
  for (const { axis, table, doubts, inner } of sides) {
    const errors = table.map((_, i) => {
      const known = finite(doubts?.[i] ?? []);
      return known.length ? median(known) : 0;
    });
    const { low, sure } = lowest(table, same, errors, ALPHA / sides.length);
    for (const particle of [...low].sort((i, j) => i - j)) {
      const rest = table.filter((_, i) => i !== particle);
      const others = same ? rest.map((line) => line.filter((_, j) => j !== particle)) : rest;
      const one = { axis, particle, score: mean(finite(table[particle])), others: mean(finite(others.flat())) };
      if (!sure) found.unsure.push(one);
      else if (
        !hasPartner(table, particle, low, same) &&
        (same || low.length === 1 || (inner && !hasPartner(offDiagonal(inner), particle, low, true)))
      ) {
        found.odd.push(one);
      }
    }
  }
  for (const ones of [found.odd, found.unsure]) ones.sort((a, b) => fall(a) - fall(b));
  return found;
}

/** What ties stays in its order. */
const fall = (one: OddOne) => Math.round((one.score - one.others) * 1e9);

/** The rows that stand apart, and whether they surely do; else the last one, if clearly last. */
function lowest(table: Table, same: boolean, errors: readonly number[], alpha: number): { low: number[]; sure: boolean } {
  const logs = table.map((line) => line.map((v) => Math.log(Math.max(v, FLOOR))));
  const [plain, all] = [table, logs].map((values) => effects(values, same, []));
  const order = all.map((_, i) => i).filter((i) => Number.isFinite(all[i]));
  order.sort((i, j) => all[i] - all[j]);
  const n = order.length;
  const most = Math.max(1, Math.floor(n / 4));
  let [apart, clear] = [0, 0];
  for (let k = 1; n >= 3 && k <= most; k++) {
    const [low, rest] = [order.slice(0, k), order.slice(k)];
    const least = (of: readonly number[]) => Math.min(...rest.map((i) => of[i]));
    const highest = (of: readonly number[]) => Math.max(...low.map((i) => of[i]));
    const gap = least(plain) - highest(plain);
    const error = 3 * highest(errors);
    if (!(gap > Math.max(MIN_GAP, error))) continue;
    clear ||= k;
    // One pair has no two effects of its own.
    const logged = !same || rest.length > 2 ? effects(logs, same, low) : all;
    const fall = (least(logged) - highest(logged)) * Math.sqrt(1 - (error / gap) ** 2);
    const spread = Math.max(...rest.map((i) => logged[i])) - least(logged);
    if (most * chance(fall, spread, k, n) < alpha) apart = k;
  }
  return { low: order.slice(0, apart || Number(clear === 1)), sure: apart > 0 };
}

/** Of so large a gap above the k lowest of n effects of an exponential tail, given the spread of the rest. */
function chance(gap: number, spread: number, k: number, n: number): number {
  if (gap <= 0 || spread <= 0) return Number(gap <= 0);
  let product = 1;
  for (let j = k + 1; j < n; j++) product /= 1 + (k * gap) / spread / j;
  return product;
}

/**
 * Least squares a of table_ij = a_i + c_j over the known entries; `low` rows have no part in it, their effect is what
 * they have beyond c. NaN for a row that lacks more than half of what the fullest row has.
 */
function effects(table: Table, same: boolean, low: readonly number[]): number[] {
  const counts = [table, transposed(table)].map((t) => t.map((line) => finite(line).length));
  const [rows, cols] = counts.map((c) => c.map((count) => 2 * count >= Math.max(1, ...c)));
  const known = (i: number, j: number) => rows[i] && cols[j] && Number.isFinite(table[i][j]);
  const size = rows.length + cols.length;
  // The tiny weight of every effect chooses the shortest of the solutions, which differ by what a gives to c.
  const normal = Array.from({ length: size }, (_, i) => Array.from({ length: size }, (_, j) => (i === j ? 1e-9 : 0)));
  const sums = Array<number>(size).fill(0);
  table.forEach((line, i) =>
    line.forEach((v, j) => {
      if (!known(i, j) || low.includes(i) || (same && low.includes(j))) return;
      const c = rows.length + j;
      for (const [p, q] of [[i, c], [c, i], [i, i], [c, c]]) normal[p][q] += 1;
      for (const p of [i, c]) sums[p] += v;
    }),
  );
  const fitted = cols.map((_, j) => normal[rows.length + j][rows.length + j] >= 1);
  const both = solve(normal, sums);
  for (const i of low) both[i] = mean(table[i].flatMap((v, j) => (known(i, j) && fitted[j] ? [v - both[rows.length + j]] : [])));
  return rows.map((row, i) => (row ? both[i] : NaN));
}

/** Solves a positive definite system by elimination, in place. */
function solve(matrix: number[][], right: number[]): number[] {
  const n = right.length;
  for (let k = 0; k < n; k++) {
    for (let i = k + 1; i < n; i++) {
      const factor = matrix[i][k] / matrix[k][k];
      if (!factor) continue;
      for (let j = k; j < n; j++) matrix[i][j] -= factor * matrix[k][j];
      right[i] -= factor * right[k];
    }
  }
  for (let k = n - 1; k >= 0; k--) {
    for (let j = k + 1; j < n; j++) right[k] -= matrix[k][j] * right[j];
    right[k] /= matrix[k][k];
  }
  return right;
}

/** Whether some score of a row comes near to what the rows that are not `low` have. */
function hasPartner(table: Table, row: number, low: readonly number[], square: boolean): boolean {
  const others = table.filter((_, i) => !low.includes(i));
  const level = finite(others.flatMap((line) => (square ? line.filter((_, j) => !low.includes(j)) : line)));
  const own = finite(table[row]);
  if (!own.length || !level.length) return true;
  const middle = median(own);
  return Math.max(...own) >= middle + (mean(level) - middle) / 3;
}
