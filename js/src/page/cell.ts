import { block, matrix, number, sameKey } from "./data.ts";
import type { CellKey, Key, Metric, Report, Table } from "./data.ts";
import { judge, mean } from "./odd.ts";
import type { OddOne, Verdict } from "./odd.ts";

/** Why a cell between two defined layers has no score. */
const APART = "never computed together";

/** Whether every two defined layers of two models have a score. */
function met(report: Report, row: number, col: number): boolean {
  const scores = matrix(report, "mean", row, col);
  const [rows, cols] = [report.models[row].reasons, report.models[col].reasons];
  return rows.every((why, i) => why || cols.every((not, j) => not || !Number.isNaN(scores[i * cols.length + j])));
}

/** Why a cell between two defined layers has no number of a measure. */
export function lackOf(report: Report, metric: Metric, row: number, col: number): string {
  if (metric === "mean") return APART;
  const lacks = metric === "spread" ? "one pair only: no spread" : "no error bar: fewer than 5 blocks of independent samples";
  // Where some layers never met, no single reason holds for every cell.
  return met(report, row, col) ? lacks : `${lacks}, or ${APART}`;
}

/** One pair of particles with its score. */
export interface Pair {
  readonly row: number;
  readonly col: number;
  readonly score: number;
  readonly error: number;
  readonly odd: boolean;
}

/** One cell: value, error bar, and the particles that made it. */
export interface CellData {
  readonly key: CellKey;
  readonly value: number;
  readonly error: number;
  readonly reason: string;
  readonly sameModel: boolean;
  /** Both sides have one particle. */
  readonly single: boolean;
  /** Standard deviation of the score by chance; NaN where that cannot be told. */
  readonly chance: number;
  readonly above: boolean;
  /** Null where the page holds no scores of single pairs. */
  readonly scores: Table | null;
  readonly errors: Table | null;
  /** The pairs that are averaged in `value`, undefined ones too. */
  readonly pairs: readonly Pair[];
  readonly count: number;
  /** Scores inside the row's and inside the column's ensemble; null of one particle, or of both. */
  readonly within: readonly (Table | null)[];
  /** Who stands out, by `scores`: what all charts and sentences of the cell follow. */
  readonly verdict: Verdict;
}

/** Particles of an axis that stand out. */
export const oddOf = ({ verdict, sameModel }: CellData, axis: OddOne["axis"]): number[] =>
  verdict.odd.filter((o) => o.axis === axis || sameModel).map((o) => o.particle);

export function reasonOf(report: Report, { row, col }: CellKey): string {
  for (const { model, layer } of [row, col]) {
    const { name, layers, reasons } = report.models[model];
    if (reasons[layer]) return `${name} ${layers[layer]}: ${reasons[layer]}`;
  }
  return APART;
}

/** Whether (i, j) is a pair; in one ensemble at two layers (i, j) and (j, i) are different pairs, (i, i) is none. */
function isPair(key: CellKey, particles: number, i: number, j: number): boolean {
  if (key.row.model !== key.col.model || particles === 1) return true;
  return key.row.layer === key.col.layer ? i < j : i !== j;
}

export function cellData(report: Report, key: CellKey): CellData {
  const { row, col } = key;
  const sameModel = row.model === col.model;
  const [p, q] = [report.models[row.model].particles, report.models[col.model].particles];
  const scores = block(report, "scores", key);
  const errors = block(report, "stderr", key);
  const both = (table: Table) => (sameModel ? table.map((line, i) => line.map((v, j) => (v + table[j][i]) / 2)) : table);
  const within = [row, col].map((side) =>
    sameModel || report.models[side.model].particles < 2 ? null : block(report, "scores", { row: side, col: side }),
  );
  const verdict = scores ? judge(both(scores), sameModel, errors && both(errors), within) : { odd: [], unsure: [] };
  const isOdd = (i: number, j: number) =>
    verdict.odd.some((o) => o.particle === (o.axis === "row" ? i : j) || (sameModel && (o.particle === i || o.particle === j)));
  const pairs: Pair[] = [];
  let count = 0;
  for (let i = 0; i < p; i++) {
    for (let j = 0; j < q; j++) {
      if (!isPair(key, p, i, j)) continue;
      count++;
      if (scores) pairs.push({ row: i, col: j, score: scores[i][j], error: errors?.[i][j] ?? NaN, odd: isOdd(i, j) });
    }
  }
  const value = number(report, "mean", key);
  return {
    key, value, error: number(report, "stderr", key), sameModel, scores, errors, pairs, count, within, verdict,
    reason: Number.isNaN(value) ? reasonOf(report, key) : "",
    single: p * q === 1,
    chance: sameKey(row, col) && p === 1 ? NaN : number(report, "null", key),
    above: number(report, "above", key) === 1,
  };
}

/** How the score runs along one model's depth, the other side being held at its layer. */
export interface Profile {
  readonly moving: Key;
  readonly held: Key;
  readonly mean: readonly number[];
  /** Standard deviation over particle pairs or, where there is one pair, the standard error. */
  readonly width: readonly number[];
  readonly error: readonly number[];
  /** A line of each particle of the moving model: its mean over its partners. */
  readonly each: Table;
}

const finite = (v: number) => (Number.isFinite(v) ? v : 0);

export function profile(report: Report, held: Key, moving: Key): Profile {
  const { layers, particles } = report.models[moving.model];
  const keys = layers.map((_, layer): CellKey => ({ row: held, col: { model: moving.model, layer } }));
  const of = (kind: "mean" | "stderr" | "spread") => keys.map((key) => number(report, kind, key));
  const blocks = particles > 1 ? keys.map((key) => block(report, "scores", key)) : [];
  const own = held.model === moving.model;
  const each = Array.from({ length: blocks[0] ? particles : 0 }, (_, q) =>
    blocks.map((b) => mean(b!.map((line) => line[q]).filter((v, p) => Number.isFinite(v) && !(own && p === q)))),
  );
  const spread = of("spread").map(finite);
  const error = of("stderr");
  return { moving, held, mean: of("mean"), width: spread.some((v) => v > 0) ? spread : error.map(finite), error, each };
}

/** Pair scores inside one ensemble at the cell's layer, to hold beside the pairs between two ensembles. */
export interface Within {
  readonly key: Key;
  readonly pairs: readonly Pair[];
}

export function within(report: Report, data: CellData): Within[] {
  return (["row", "col"] as const).flatMap((axis, side) => {
    const scores = data.within[side];
    if (!scores) return [];
    const key = data.key[axis];
    const errors = block(report, "stderr", { row: key, col: key });
    const apart = oddOf(data, axis);
    const pairs = scores.flatMap((line, i) =>
      line.slice(i + 1).map((score, k): Pair => {
        const j = i + 1 + k;
        return { row: i, col: j, score, error: errors?.[i][j] ?? NaN, odd: apart.includes(i) || apart.includes(j) };
      }),
    );
    return [{ key, pairs }];
  });
}
