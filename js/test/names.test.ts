import assert from "node:assert/strict";
import { test } from "node:test";
import { axis } from "../src/heatmap/names.ts";

const resnet = (blocks: number, leaves: string[]) => {
  const names = ["conv1", "bn1"];
  for (let b = 0; b < blocks; b++) for (const leaf of leaves) names.push(`layer1.${b}.${leaf}`);
  return [...names, "pool", "fc"];
};

test("the shared prefix becomes a bracket, the rest stays at the cell", () => {
  const { texts, brackets, levels, common } = axis(resnet(2, ["conv", "bn"]));
  assert.deepEqual(texts, ["conv1", "bn1", "0.conv", "0.bn", "1.conv", "1.bn", "pool", "fc"]);
  assert.deepEqual(brackets, [
    { name: "layer1", level: 0, from: 2, to: 5 },
    { name: "", level: 0, from: 0, to: 1 },
    { name: "", level: 0, from: 6, to: 7 },
  ]);
  assert.equal(levels, 1);
  assert.equal(common, "");
});

test("inner brackets appear where their groups are worth it", () => {
  const { texts, brackets, levels } = axis(resnet(2, ["conv", "bn", "relu#2"]));
  assert.equal(levels, 2);
  assert.deepEqual(texts.slice(2, 5), ["conv", "bn", "relu#2"]);
  const named = brackets.filter((b) => b.name).map((b) => [b.name, b.level, b.from, b.to]);
  assert.deepEqual(named, [["layer1", 1, 2, 7], ["0", 0, 2, 4], ["1", 0, 5, 7]]);
});

test("levels can be limited, and then the label says more", () => {
  assert.equal(axis(resnet(2, ["a", "b", "c"]), 1).texts[2], "0.a");
  const none = axis(resnet(2, ["a", "b", "c"]), 0);
  assert.equal(none.levels, 0);
  assert.equal(none.texts[2], "layer1.0.a");
});

test("a prefix of all names belongs to the axis", () => {
  const { texts, common, brackets } = axis(["features.0", "features.1", "features.4"]);
  assert.deepEqual(texts, ["0", "1", "4"]);
  assert.equal(common, "features");
  assert.deepEqual(brackets, []);
});

test("a chain of only children makes one bracket", () => {
  const names = ["embed", ...[0, 1].flatMap((b) => ["query", "key", "out"].map((l) => `encoder.layer.${b}.${l}`))];
  const { brackets, texts } = axis(names);
  assert.deepEqual(brackets.filter((b) => b.level === 1).map((b) => b.name), ["encoder.layer"]);
  assert.deepEqual(brackets.filter((b) => b.level === 0).map((b) => b.name), ["0", "1"]);
  assert.deepEqual(texts.slice(0, 3), ["embed", "query", "key"]);
});

test("a container's own row stands among its children under its own last name", () => {
  const { texts, brackets } = axis(["layer1.0", "layer1.1", "layer1", "fc"]);
  assert.deepEqual(texts, ["0", "1", "layer1", "fc"]);
  assert.deepEqual(brackets[0], { name: "layer1", level: 0, from: 0, to: 2 });
});

test("groups are runs of neighbours: a module called in between breaks them", () => {
  const { brackets } = axis(["a.x", "a.y", "relu#1", "a.z", "a.w", "relu#2"]);
  assert.deepEqual(brackets.filter((b) => b.name).map((b) => [b.from, b.to]), [[0, 1], [3, 4]]);
});

test("no names, one name, equal names", () => {
  assert.deepEqual(axis([]).texts, []);
  assert.deepEqual(axis(["a.b.c"]).texts, ["c"]);
  assert.deepEqual(axis(["(output)", "(output)"]).texts, ["(output)", "(output)"]);
});

test("inner brackets stand at all groups of an axis or at none", () => {
  const names = ["layer1.0.conv", "layer1.0.bn", "layer1.0", "layer1.1.conv", "layer1.1.bn", "layer1", "fc"];
  const inner = axis(names).brackets.filter((b) => b.level === 0 && b.name);
  assert.deepEqual(inner.map((b) => [b.name, b.from, b.to]), [["0", 0, 2], ["1", 3, 4]]);
});

test("groups begin with a label that is kept, with a bracket or without", () => {
  const { starts } = axis(["embed", ...[0, 1, 2].flatMap((b) => ["q", "k", "v"].map((l) => `blocks.${b}.${l}`))], 1);
  assert.deepEqual([...new Set(starts)].sort((x, y) => x - y), [1, 4, 7]);
});
