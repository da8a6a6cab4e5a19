import assert from "node:assert/strict";
import { test } from "node:test";
import { fixed, short, tickDigits, ticks, withError } from "../src/heatmap/format.ts";

test("a number shows two significant digits of its error", () => {
  assert.equal(withError(0.71342, 0.0213), "0.713 ± 0.021");
  assert.equal(withError(0.71342, 0.21), "0.71 ± 0.21");
  assert.equal(withError(0.71342, 0.00213), "0.7134 ± 0.0021");
  assert.equal(withError(0.71342, 0), "0.71 ± 0.00");
  assert.equal(withError(-0.0512, 0.02), "\u22120.051 ± 0.020");
  assert.equal(withError(0.71342, NaN), "0.713");
});

test("zero has no sign", () => assert.equal(fixed(-0.0001, 2), "0.00"));

test("the short form in a cell", () => {
  assert.deepEqual([0.714, 1, -0.034, 0, -0.001, 1.25].map(short), [".71", "1.0", "\u2212.03", ".00", ".00", "1.25"]);
});

test("ticks are round and inside the range", () => {
  assert.deepEqual(ticks(0, 1, 4), [0, 0.25, 0.5, 0.75, 1]);
  assert.deepEqual(ticks(0, 1, 2), [0, 0.5, 1]);
  assert.deepEqual(ticks(-0.03, 0.31, 4), [0, 0.1, 0.2, 0.3]);
  assert.equal(tickDigits([0, 0.25]), 2);
  assert.equal(tickDigits([0, 0.005]), 3);
  assert.deepEqual(ticks(1, 1, 4), [1]);
});
