import { floats } from "../shared/model.ts";

export interface ModelData {
  readonly name: string;
  readonly particles: number;
  readonly layers: readonly string[];
  readonly info: readonly string[];
  readonly reasons: readonly string[];
}

/** What the heatmap can show. */
export type Metric = "mean" | "spread" | "stderr";

type Kind = Metric | "null" | "above";

/** One measure of the result; matrices are upper halves, base64 of little-endian float32. */
export interface WrittenMeasure {
  readonly title: string;
  /** Its value by chance; 0 too where that is not known. */
  readonly chance: number;
  readonly setting: string;
  readonly matrices: Partial<Record<Kind, string>>;
  readonly particles: { readonly scores: string; readonly stderr: string } | null;
}

/** What Python writes into the page. */
export interface Written {
  readonly title: string;
  readonly models: readonly ModelData[];
  readonly measures: readonly WrittenMeasure[];
  readonly particles_note: string;
  readonly samples: number;
  readonly batches: number;
  readonly seconds: number;
  readonly footnote: readonly string[];
  /** What a score above chance may come down to; empty where the data had no labels. */
  readonly chance_note: string;
  readonly warnings: readonly string[];
  /** What it shows first; measure, models and layers by index, `selected` empty for no cell. */
  readonly start: {
    readonly measure: number;
    readonly row: number;
    readonly col: number;
    readonly metric: Metric;
    readonly selected: readonly number[];
  };
}

/** A symmetric matrix of which the upper half is kept, row by row with the diagonal. */
export interface Half {
  readonly size: number;
  readonly data: Float32Array;
}

interface Measure {
  readonly matrices: Partial<Record<Kind, Half>>;
  readonly particles: { readonly scores: Half; readonly stderr: Half } | null;
}

/** What the page holds, with the numbers of one of its measures. */
export interface Report extends Measure {
  readonly text: Written;
  readonly models: readonly ModelData[];
  /** Where the models' layers begin among all layers, and their rows among those of all particles. */
  readonly firstLayer: readonly number[];
  readonly firstRow: readonly number[];
  readonly measures: readonly Measure[];
  /** Which of them is shown. */
  readonly measure: number;
}

/** A layer of a model, both by index. */
export interface Key {
  readonly model: number;
  readonly layer: number;
}

export interface CellKey {
  readonly row: Key;
  readonly col: Key;
}

/** A matrix by rows. */
export type Table = number[][];

export const sameKey = (a: Key, b: Key): boolean => a.model === b.model && a.layer === b.layer;

function half(base64: string): Half {
  const data = floats(Uint8Array.from(atob(base64), (sign) => sign.charCodeAt(0)));
  return { size: Math.round((Math.sqrt(8 * data.length + 1) - 1) / 2), data };
}

export function at({ size, data }: Half, i: number, j: number): number {
  const [r, c] = i <= j ? [i, j] : [j, i];
  return data[r * size - (r * (r - 1)) / 2 + c - r];
}

export function read(json: string): Report {
  const text = JSON.parse(json) as Written;
  const firstLayer = [0];
  const firstRow = [0];
  text.models.forEach((m, i) => {
    firstLayer.push(firstLayer[i] + m.layers.length);
    firstRow.push(firstRow[i] + m.layers.length * m.particles);
  });
  const measures = text.measures.map(({ matrices, particles }) => ({
    matrices: Object.fromEntries(Object.entries(matrices).map(([kind, written]) => [kind, half(written)])),
    particles: particles && { scores: half(particles.scores), stderr: half(particles.stderr) },
  }));
  const measure = text.start.measure;
  return { text, models: text.models, firstLayer, firstRow, measures, measure, ...measures[measure] };
}

/** The same under another of its measures. */
export const under = (report: Report, measure: number): Report => ({ ...report, measure, ...report.measures[measure] });

/** One number of a cell; NaN where the page has no such matrix. */
export function number(report: Report, kind: Kind, { row, col }: CellKey): number {
  const whole = report.matrices[kind];
  const place = (key: Key) => report.firstLayer[key.model] + key.layer;
  return whole ? at(whole, place(row), place(col)) : NaN;
}

/** Layers of `row` x layers of `col`, row-major. */
export function matrix(report: Report, kind: Kind, row: number, col: number): Float32Array {
  const cols = report.models[col].layers.length;
  const cell = (i: number): CellKey => ({
    row: { model: row, layer: Math.floor(i / cols) },
    col: { model: col, layer: i % cols },
  });
  return Float32Array.from({ length: report.models[row].layers.length * cols }, (_, i) => number(report, kind, cell(i)));
}

/** Particles of `row` x particles of `col` at their layers; null where the page has no such numbers. */
export function block(report: Report, kind: "scores" | "stderr", { row, col }: CellKey): Table | null {
  const whole = report.particles?.[kind];
  if (!whole) return null;
  const place = ({ model, layer }: Key, particle: number) =>
    report.firstRow[model] + particle * report.models[model].layers.length + layer;
  return Array.from({ length: report.models[row.model].particles }, (_, p) =>
    Array.from({ length: report.models[col.model].particles }, (_, q) => at(whole, place(row, p), place(col, q))),
  );
}
