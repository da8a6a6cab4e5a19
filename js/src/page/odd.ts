import type { Table } from "./data.ts";

/** Smallest fall of a particle's score that is worth a word. */
const MIN_GAP = 0.1;
/** How many robust standard deviations of the others' scores a particle has to lie below them. */
const MIN_SPREADS = 4;

/** A particle that agrees with its partners less than the other particles do. */
export interface OddOne {
  readonly axis: "row" | "col";
  readonly particle: number;
  /** Mean score of its own pairs, and of the pairs without it. */
  readonly score: number;
  readonly others: number;
}

export const mean = (values: readonly number[]): number => values.reduce((sum, v) => sum + v, 0) / values.length;

function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const place = q * (sorted.length - 1);
  const low = Math.floor(place);
  return sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}

const median = (values: readonly number[]): number => quantile(values, 0.5);

/**
 * Particles whose pairs score clearly lower than all pairs without them: with S its own pair scores and O the pair
 * scores without it, median(O) - median(S) > max(0.1, 4 * 1.4826 MAD(O), 3 * median error of S), and the upper
 * quartile of S lies below the lower quartile of O. The furthest first. The same rule as the notebook's drill-down,
 * held by a table of cases that both are tested on. With `same` the axes are the same particles.
 */
export function oddOnesOut(scores: Table, same: boolean, errors: Table | null): OddOne[] {
  const found: { gap: number; odd: OddOne }[] = [];
  const shape = [scores.length, scores[0]?.length ?? 0];
  for (const axis of same ? [0] : [0, 1]) {
    for (let index = 0; shape[axis] >= 3 && index < shape[axis]; index++) {
      const own: number[] = [];
      const rest: number[] = [];
      const doubts: number[] = [];
      scores.forEach((line, i) =>
        line.forEach((score, j) => {
          if (same && i === j) return;
          const mine = (axis ? j : i) === index;
          const error = mine ? (errors?.[i][j] ?? NaN) : NaN;
          if (Number.isFinite(error)) doubts.push(error);
          if (!Number.isFinite(score)) return;
          if (mine) own.push(score);
          else if (!same || (j !== index && i < j)) rest.push(score);
        }),
      );
      if (!own.length || !rest.length) continue;
      const centre = median(rest);
      const gap = centre - median(own);
      const spread = 1.4826 * median(rest.map((v) => Math.abs(v - centre)));
      const doubt = doubts.length ? median(doubts) : 0;
      if (quantile(own, 0.75) < quantile(rest, 0.25) && gap > Math.max(MIN_GAP, MIN_SPREADS * spread, 3 * doubt)) {
        found.push({ gap, odd: { axis: axis ? "col" : "row", particle: index, score: mean(own), others: mean(rest) } });
      }
    }
  }
  return found.sort((a, b) => b.gap - a.gap).map(({ odd }) => odd);
}
