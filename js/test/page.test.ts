import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { cellData, lackOf, profile, reasonOf, within } from "../src/page/cell.ts";
import { at, block, matrix, read, under } from "../src/page/data.ts";
import { measureRow, measureRows } from "../src/page/measures.ts";
import { angles, classicalMds, eigen, similarityOrder } from "../src/page/mds.ts";
import { localModel } from "../src/page/model.ts";
import { judge } from "../src/page/odd.ts";
import { crowded } from "../src/page/plane.ts";
import { line, reach } from "../src/page/svg.ts";
import { clip, distinct, duration, plural, plusMinus, score } from "../src/page/words.ts";

type Cases = {
  name: string;
  same: boolean;
  scores: (number | null)[][];
  stderr: (number | null)[][] | null;
  within: ((number | null)[][] | null)[] | null;
  odd: [string, number, number, number][];
  unsure: [string, number, number, number][];
  order: [number[], number[]] | null;
  map: (number | null)[][] | null;
}[];

const base64 = (numbers: number[]) => Buffer.from(Float32Array.from(numbers).buffer).toString("base64");

/** The upper half of a symmetric matrix given by a function of (i, j), i <= j. */
function half(size: number, of: (i: number, j: number) => number): string {
  const out: number[] = [];
  for (let i = 0; i < size; i++) for (let j = i; j < size; j++) out.push(of(i, j));
  return base64(out);
}

/** Two models of two and three layers, two and three particles: layer rows 0..4, particle rows 0..12. */
function report(more: object = {}, first: object = {}) {
  const model = (name: string, particles: number, layers: string[]) => ({
    name, particles, layers, info: layers.map(() => ""), reasons: layers.map(() => ""),
  });
  return read(
    JSON.stringify({
      title: "CKA", models: [model("a", 2, ["x", "y"]), model("b", 3, ["u", "v", "w"])],
      measures: [
        {
          title: "CKA", chance: 0, setting: "",
          matrices: { mean: half(5, (i, j) => i + j / 10), stderr: half(5, () => 0.012), spread: half(5, () => 0.02) },
          particles: { scores: half(13, (i, j) => i + j / 100), stderr: half(13, () => 0.01) },
          ...first,
        },
        { title: "mutual 5-NN", chance: 0.16, setting: "", matrices: { mean: half(5, (i, j) => (i + j) / 20) }, particles: null },
      ],
      start: { measure: 0, row: 0, col: 1, metric: "mean", selected: [] },
      particles_note: "", samples: 1, batches: 1, seconds: 1, footnote: [], chance_note: "", warnings: [], ...more,
    }),
  );
}

const cell = (a: [number, number], b: [number, number]) => ({
  row: { model: a[0], layer: a[1] },
  col: { model: b[0], layer: b[1] },
});
const near = (found: number, expected: number) => assert.ok(Math.abs(found - expected) < 1e-5, `${found} is not ${expected}`);

const numbers = (table: (number | null)[][]) => table.map((row) => row.map((v) => v ?? NaN));

test("odd ones, orders and maps are those of the notebook", () => {
  const cases = JSON.parse(readFileSync(new URL("../../tests/particle_cases.json", import.meta.url), "utf8")) as Cases;
  assert.ok(cases.length > 15);
  for (const { name, same, scores, stderr, within, odd, unsure, order, map } of cases) {
    const found = judge(numbers(scores), same, stderr && numbers(stderr), within?.map((own) => own && numbers(own)));
    for (const [ones, expected] of [[found.odd, odd], [found.unsure, unsure]] as const) {
      assert.deepEqual(ones.map((o) => [o.axis, o.particle]), expected.map((o) => o.slice(0, 2)), name);
      ones.forEach((o, i) => [near(o.score, expected[i][2]), near(o.others, expected[i][3])]);
    }
    if (order) assert.deepEqual(similarityOrder(numbers(scores), same), order, name);
    const coords = map && classicalMds(angles(numbers(scores)), 2);
    // An axis may point either way where two of its ends are equally far out.
    for (const k of coords ? [0, 1] : []) {
      const [mine, theirs] = [coords!, numbers(map!)].map((points) => points.map((c) => c[k]));
      const same = (sign: number) =>
        mine.every((v, i) => Math.abs(sign * v - theirs[i]) < 1e-5 || (Number.isNaN(v) && Number.isNaN(theirs[i])));
      assert.ok(same(1) || same(-1), `${name}: axis ${k}: ${mine} is not ${theirs}`);
    }
  }
});

test("matrices and particles are found in the halves", () => {
  const r = report();
  assert.equal(r.matrices.mean!.size, 5);
  assert.equal(at(r.matrices.mean!, 1, 4), at(r.matrices.mean!, 4, 1));
  const m = matrix(r, "mean", 1, 0);
  assert.equal(m.length, 6);
  near(m[0], 0.2); // u against x: (2, 0), kept as (0, 2)
  near(m[5], 1.4); // w against y: (4, 1), kept as (1, 4)
  // Particle 1 of a at y is row 3, particle 2 of b at u is row 4 + 6.
  near(block(r, "scores", cell([0, 1], [1, 0]))![1][2], 3.1);
  near(block(r, "scores", cell([1, 0], [0, 1]))![2][1], 3.1);
});

test("a cell knows its pairs", () => {
  const r = report();
  assert.equal(cellData(r, cell([0, 0], [1, 0])).count, 6);
  assert.deepEqual(cellData(r, cell([1, 0], [1, 0])).pairs.map((p) => [p.row, p.col]), [[0, 1], [0, 2], [1, 2]]);
  assert.equal(cellData(r, cell([1, 0], [1, 1])).count, 6);
  assert.deepEqual(within(r, cellData(r, cell([0, 0], [1, 0]))).map((w) => w.pairs.length), [1, 3]);
  assert.deepEqual(within(r, cellData(r, cell([1, 0], [1, 0]))), []);
});

test("under another measure all numbers are its own", () => {
  const r = report();
  const knn = under(r, 1);
  near(matrix(knn, "mean", 0, 1)[0], 0.1);
  assert.deepEqual([cellData(knn, cell([0, 0], [1, 0])).scores, cellData(r, cell([0, 0], [1, 0])).scores?.length], [null, 2]);
  near(matrix(under(knn, 0), "mean", 0, 1)[0], 0.2);
});

test("a cell is told under every measure, whichever is shown", () => {
  const rows = [
    { title: "CKA", value: "0.200 ± 0.012", chance: "", at: 20, tick: null },
    { title: "mutual 5-NN", value: "0.10", chance: "by chance .16", at: 10, tick: 16 },
  ];
  for (const k of [0, 1]) assert.deepEqual(measureRows(under(report(), k), cell([0, 0], [1, 0])), rows);
  const single = report({ models: [{ ...report().models[0], particles: 1 }, report().models[1]] });
  assert.equal(measureRows(single, cell([0, 0], [0, 0]))[1].chance, "");
  assert.equal(measureRows(single, cell([0, 0], [0, 1]))[1].chance, "by chance .16");
});

test("rows of measures are those of the notebook", () => {
  type Case = { title: string; value: number | null; error: number | null; chance: number | null; row: object };
  const cases = JSON.parse(readFileSync(new URL("../../tests/measure_cases.json", import.meta.url), "utf8")) as Case[];
  assert.ok(cases.length > 5);
  for (const { title, value, error, chance, row } of cases) {
    assert.deepEqual(measureRow(title, value ?? NaN, error ?? NaN, chance ?? 0), { title, ...row });
  }
});

test("a profile averages over the partners, never over a particle with itself", () => {
  const r = report();
  const across = profile(r, { model: 0, layer: 0 }, { model: 1, layer: 2 });
  assert.equal(across.each.length, 3);
  near(across.each[0][0], (0.04 + 2.04) / 2); // rows 0 and 2 of a against row 4 of b
  near(across.mean[2], 0.4);
  near(across.width[0], 0.02);
  const own = profile(r, { model: 0, layer: 0 }, { model: 0, layer: 1 });
  near(own.each[0][1], 1.02); // particle 0 at y is row 1, its one partner at x is row 2
});

test("a page without particles has the rest", () => {
  const r = report({ particles_note: "left out" }, { particles: null });
  const data = cellData(r, cell([0, 0], [1, 0]));
  assert.equal(data.scores, null);
  assert.deepEqual([data.count, data.verdict.odd.length, data.pairs.length], [6, 0, 0]);
  assert.deepEqual(profile(r, data.key.row, data.key.col).each, []);
});

test("an undefined cell says why", () => {
  const r = report();
  assert.equal(reasonOf(r, cell([0, 0], [1, 0])), "never computed together");
  (r.models[1].reasons as string[])[2] = "never ran";
  assert.equal(reasonOf(r, cell([0, 0], [1, 2])), "b w: never ran");
});

test("a cell without an error bar or a spread is not said to be uncomputed", () => {
  const r = report();
  assert.equal(lackOf(r, "mean", 0, 1), "never computed together");
  assert.equal(lackOf(r, "stderr", 0, 1), "no error bar: fewer than 5 blocks of independent samples");
  assert.equal(lackOf(r, "spread", 0, 1), "one pair only: no spread");
  const parted = report({}, { matrices: { mean: half(5, (i, j) => (i === 1 && j === 4 ? NaN : 0.5)) } });
  assert.equal(lackOf(parted, "stderr", 0, 1), "no error bar: fewer than 5 blocks of independent samples, or never computed together");
  assert.equal(lackOf(parted, "stderr", 0, 0), "no error bar: fewer than 5 blocks of independent samples");
});

test("more particles than the page can place are counted on both sides", () => {
  const of = (rows: number, cols: number, same: boolean) => {
    const scores = Array.from({ length: rows }, () => Array<number>(cols).fill(0.5));
    return crowded({ ...cellData(report(), same ? cell([0, 0], [0, 0]) : cell([0, 0], [1, 0])), scores });
  };
  assert.deepEqual([of(40, 40, false), of(40, 41, false), of(80, 80, true), of(81, 81, true)], [false, true, false, true]);
});

test("the local model tells its listeners", () => {
  const model = localModel<{ n: number; s: string }>({ n: 1, s: "" });
  let heard = 0;
  const listener = () => heard++;
  model.on("change:n", listener);
  model.assign({ n: 2, s: "x" });
  model.set("n", 2);
  assert.equal(heard, 1);
  model.off("change:n", listener);
  model.set("n", 3);
  assert.deepEqual([heard, model.get("n"), model.get("s")], [1, 3, "x"]);
});

test("words", () => {
  assert.equal(score(0.71342, 0.021), "0.713");
  assert.equal(score(NaN), "undefined");
  assert.deepEqual([plusMinus(0.0213), plusMinus(1e-6), plusMinus(NaN)], ["± 0.021", "± < 0.0001", ""]);
  assert.deepEqual([plural(1, "pair"), plural(1200, "pair")], ["1 pair", "1,200 pairs"]);
  assert.deepEqual([0.01, 12, 200, 700, 7500].map(duration), ["0.1 s", "12 s", "3 min 20 s", "11 min", "2 h 5 min"]);
  assert.equal(clip("a very long name of a layer", 9), "a ve…ayer");
  assert.deepEqual(distinct(["wide CNN", "deep CNN"]), ["wide", "deep"]);
  assert.deepEqual(distinct(["net a 1", "net b 1"]), ["a", "b"]);
  assert.deepEqual(distinct(["CNN", "deep CNN"]), ["CNN", "deep CNN"]);
  assert.deepEqual(distinct(["alone"]), ["alone"]);
  assert.deepEqual(distinct(["", "x"]), ["", "x"]);
});

test("eigenvectors solve the matrix", () => {
  const m = [[4, 1, -2], [1, 3, 0], [-2, 0, -1]];
  const { values, vectors } = eigen(m);
  assert.ok(values[0] >= values[1] && values[1] >= values[2]);
  near(values[0] + values[1] + values[2], 6);
  vectors.forEach((v, k) => m.forEach((row, i) => near(row.reduce((sum, a, j) => sum + a * v[j], 0), values[k] * v[i])));
});

test("paths break where there is no value", () => {
  assert.equal(line([[0, 1], [1, NaN], [2, 3], [3, 4]]), "M0.0 1.0M2.0 3.0L3.0 4.0");
  assert.deepEqual(reach([0.2, NaN]), [0, 1]);
  assert.deepEqual(reach([-0.15, 1.2]), [-0.2, 1.2]);
});
