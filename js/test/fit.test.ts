import assert from "node:assert/strict";
import { test } from "node:test";
import { bracketTexts, shorten, thin } from "../src/heatmap/fit.ts";

const measure = (text: string) => [...text].length * 6;

test("a text that fits is left alone, one that does not loses its middle", () => {
  assert.equal(shorten("layer1.conv", 66, measure), "layer1.conv");
  assert.equal(shorten("downsample.1", 48, measure), "dow…le.1");
  assert.equal(shorten("downsample.1", 5, measure), "");
});

test("a shortened text is never wider than its room", () => {
  for (let room = 0; room < 90; room++) assert.ok(measure(shorten("encoder.layer.7", room, measure)) <= room);
});

test("all labels stand where there is room for all", () => {
  assert.deepEqual(thin(3, 6, 14, 13, []), [3, 4, 5, 6]);
});

test("thinned labels never come nearer than they may", () => {
  for (const pitch of [0.4, 1.36, 2.7, 6, 12.9]) {
    const kept = thin(0, 499, pitch, 13, [100, 104, 250, 499], [251]);
    for (let i = 1; i < kept.length; i++) assert.ok((kept[i] - kept[i - 1]) * pitch >= 13 - 1e-9, `${pitch}`);
  }
});

test("starts of groups are kept first, in their order", () => {
  assert.deepEqual(thin(0, 9, 5, 13, [4, 5, 8]), [0, 4, 8]);
});

test("a focused label pushes neighbours out and moves no other", () => {
  const still = thin(0, 99, 5, 13, []);
  const moved = thin(0, 99, 5, 13, [], [50]);
  assert.ok(moved.includes(50));
  assert.deepEqual(moved.filter((i) => i !== 50), still.filter((i) => Math.abs(i - 50) >= 3));
});

test("a focus out of sight changes nothing", () => {
  assert.deepEqual(thin(10, 20, 5, 13, [], [3, -1]), thin(10, 20, 5, 13, []));
});

const brackets = (rooms: Record<string, number>) =>
  bracketTexts(Object.entries(rooms).map(([name, room]) => ({ name, whole: room, seen: room })), measure);

test("brackets keep their names where all of them have room", () => {
  assert.deepEqual(brackets({ block1: 36, block2: 60 }), { texts: ["block1", "block2"], stem: "" });
});

test("where one of a numbered row has no room, all of them show their numbers", () => {
  assert.deepEqual(brackets({ block1: 30, block2: 60, head: 60 }), { texts: ["1", "2", "head"], stem: "block" });
  assert.deepEqual(brackets({ block1: 30, layer2: 30 }).stem, "", "two stems do not fit one place");
  assert.deepEqual(brackets({ block1: 2, block2: 60 }).texts, ["", "2"]);
});

test("a number without neighbours does not stand for its name", () => {
  assert.deepEqual(brackets({ layer1: 60, after1: 30 }).texts, ["layer1", "af…r1"]);
});

test("a name without a number loses its middle, or all of itself", () => {
  assert.deepEqual(brackets({ encoder: 36, decoder: 12 }).texts, ["en…der", ""]);
});

test("a bracket that is half out of sight does not rename the others", () => {
  const spans = [{ name: "block1", whole: 60, seen: 12 }, { name: "block2", whole: 60, seen: 60 }];
  assert.deepEqual(bracketTexts(spans, measure).texts, ["", "block2"]);
});
