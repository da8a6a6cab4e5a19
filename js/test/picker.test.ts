import assert from "node:assert/strict";
import { test } from "node:test";
import { choosable, mark, ordered, put, range, rowCount, sums } from "../src/picker/choice.ts";
import { pattern, search, spots } from "../src/picker/filter.ts";
import { amount, aside, detail } from "../src/picker/line.ts";
import { all, atDepth, blocks, every, leaves, ofClass, tally } from "../src/picker/presets.ts";
import { firstOpen, plant, ROOT, rows } from "../src/picker/tree.ts";
import type { Module } from "../src/picker/tree.ts";

const module = (name: string, cls: string, parent: number, more: Partial<Module> = {}): Module => ({
  name, label: name.split(".").pop()!, cls, shape: "", params: 0, calls: 1, depth: name.split(".").length - 1, parent,
  status: "ran", alias: "", why: "", ...more,
});
const tree = plant([
  module("conv1", "Conv2d", -1),
  module("layer1", "Sequential", -1),
  module("layer1.0", "Block", 1),
  module("layer1.0.conv", "Conv2d", 2),
  module("layer1.0.relu", "ReLU", 2, { status: "alias", alias: "layer1.0" }),
  module("layer1.1", "Block", 1),
  module("layer1.1.conv", "Conv2d", 5, { calls: 2 }),
  module("aux", "Linear", -1, { status: "never ran", calls: 0 }),
]);
const names = (lines: { node: number }[]) => lines.map((r) => (r.node === ROOT ? "*" : tree.nodes[r.node].label));
const box = (checked: string[], i: number, scope: Uint8Array | null = null) =>
  mark(tree, sums(tree, new Set(checked), scope), new Set(checked), i);

test("closed branches are left out", () => {
  assert.deepEqual(names(rows(tree, (i) => i === ROOT, null)), ["*", "conv1", "layer1", "aux"]);
  const open = rows(tree, (i) => i < 2, null);
  assert.deepEqual(names(open), ["*", "conv1", "layer1", "0", "1", "aux"]);
  assert.deepEqual(open[4], { node: 5, level: 3, position: 2, siblings: 2 });
});

test("whole levels are open at first, as many as fit", () => {
  assert.deepEqual([...firstOpen(tree, 4)], [ROOT]);
  assert.deepEqual([...firstOpen(tree, 6)], [ROOT, 1]);
  assert.deepEqual([...firstOpen(tree, 99)], [ROOT, 1, 2, 5]);
});

test("a box is full, mixed or empty by itself and all below it", () => {
  assert.equal(box([], 1), "false");
  assert.equal(box(["layer1"], 1), "mixed");
  assert.equal(box(["layer1.0.conv"], 1), "mixed");
  assert.equal(box(["layer1.0", "layer1.0.conv"], 2), "true");
  assert.equal(box(all(tree, null), ROOT), "true");
});

test("an alias follows what it stands for", () => {
  assert.equal(box(["layer1.0"], 4), "true");
  assert.deepEqual([...put(tree, new Set(), 4, true, null)], ["layer1.0"]);
});

test("what never ran cannot be chosen", () => {
  assert.equal(choosable(tree, sums(tree, new Set(), null), 7), false);
  assert.deepEqual([...put(tree, new Set(), 7, true, null)], []);
});

test("what holds no samples says so, cannot be chosen, and its tooltip has the reason", () => {
  const why = "its output (9, 4) is as large for 2 samples as for 3";
  const t = plant([module("pos", "Table", -1, { status: "no rows", why }), module("pos.emb", "Embedding", 0)]);
  assert.equal(aside(t, 0), "no rows");
  assert.equal(detail(t, 0), `pos · Table · ${why}`);
  assert.equal(aside(tree, 7), "never ran");
  assert.deepEqual(all(t, null), ["pos.emb"]);
});

test("a container takes all below it along, or goes alone", () => {
  const below = ["layer1.1", "layer1.1.conv"];
  assert.deepEqual([...put(tree, new Set(), 5, true, null)], below);
  assert.deepEqual([...put(tree, new Set(below), 5, false, null, true)], ["layer1.1.conv"]);
  assert.deepEqual([...put(tree, new Set(below), 5, false, null)], []);
});

test("within a search only what was found is chosen", () => {
  const found = search(tree, "conv2d layer1")!;
  assert.equal(found.count, 2);
  assert.deepEqual([...put(tree, new Set(), 1, true, found.match)], ["layer1.0.conv", "layer1.1.conv"]);
  assert.equal(box(["layer1.0.conv", "layer1.1.conv"], 1, found.match), "true");
  assert.deepEqual(names(rows(tree, () => true, found.shown)), ["*", "layer1", "0", "conv", "1", "conv"]);
});

test("a search takes words, stars and no surprises", () => {
  assert.equal(search(tree, "  "), null);
  assert.equal(search(tree, "LAYER1*relu")!.count, 1);
  assert.equal(search(tree, "layer1.0")!.count, 3);
  assert.equal(search(tree, "(((")!.count, 0);
  assert.deepEqual(spots("layer1.conv", pattern("conv lay")), [[0, 3], [7, 11]]);
});

test("a range follows its first line; closed branches go whole", () => {
  const lines = rows(tree, (i) => i === ROOT, null);
  const next = range(tree, new Set(), lines, 1, 3, true, () => false, null);
  assert.deepEqual(ordered(tree, next), all(tree, null));
  const opened = rows(tree, (i) => i < 2, null);
  const part = range(tree, new Set(), opened, 3, 1, true, (i) => i < 2, null);
  assert.deepEqual(ordered(tree, part), ["conv1", "layer1", "layer1.0", "layer1.0.conv"]);
});

test("presets", () => {
  assert.deepEqual(blocks(tree, null), ["layer1", "layer1.0", "layer1.1"]);
  assert.deepEqual(leaves(tree, null), ["conv1", "layer1.0", "layer1.0.conv", "layer1.1.conv"]);
  assert.deepEqual(ofClass(tree, null, "Conv2d"), ["conv1", "layer1.0.conv", "layer1.1.conv"]);
  assert.deepEqual(ofClass(tree, null, "Linear"), []);
  assert.deepEqual(atDepth(tree, null, 1), ["layer1.0", "layer1.1"]);
  assert.deepEqual(every(tree, new Set(all(tree, null)), 3), ["conv1", "layer1.0.conv"]);
  assert.deepEqual(tally(tree, null, (i) => tree.nodes[i].cls)[0], ["Conv2d", 3]);
});

test("each call is a row", () => {
  assert.equal(rowCount(tree, new Set(["layer1.1.conv", "conv1", "aux"])), 3);
});

test("amounts are short", () => {
  assert.deepEqual([12, 999, 1200, 96000, 310000, 25557032].map(amount), ["12", "1.0 k", "1.2 k", "96 k", "310 k", "26 M"]);
});
