import assert from "node:assert/strict";
import { test } from "node:test";
import { step } from "../src/heatmap/keys.ts";
import { layout } from "../src/heatmap/layout.ts";

const wish = {
  width: 800, height: 0, rows: 22, cols: 30, rowText: 50, colText: 50, rowLevels: 1, colLevels: 1, compact: false,
  square: false, title: false, barTitle: false,
};

test("nothing is wider than the room there is", () => {
  for (const width of [320, 400, 600, 900, 1400, 2400]) {
    for (const [rows, cols] of [[1, 1], [10, 10], [22, 30], [182, 182], [1000, 1000], [3, 400], [400, 3]]) {
      for (const compact of [false, true]) {
        const l = layout({ ...wish, width, rows, cols, compact });
        assert.ok(l.plot.x + l.plot.w <= width, `${width} ${rows} ${cols}`);
        if (l.bar) assert.ok(l.bar.x + l.bar.w + 30 <= width, `bar at ${width}`);
        assert.ok(l.plot.y + l.plot.h < l.height);
        assert.ok(l.plot.w > 0 && l.plot.h > 0);
      }
    }
  }
});

test("cells are about square, and square where that is asked", () => {
  const l = layout(wish);
  assert.ok(Math.abs(l.plot.w / 30 / (l.plot.h / 22) - 1) < 0.05);
  const s = layout({ ...wish, rows: 200, square: true });
  assert.ok(Math.abs(s.plot.w / 30 - s.plot.h / 200) < 0.1);
});

test("few cells are square where there is room, and stand in the middle", () => {
  for (const n of [1, 3, 4]) {
    const { plot, bar, rowTitle } = layout({ ...wish, rows: n, cols: n, height: 360, width: 720 });
    assert.ok(Math.abs(plot.w / plot.h - 1) < 0.02, `${plot.w} x ${plot.h}`);
    assert.ok(Math.abs(rowTitle - 10 - (720 - bar!.x - 22 - 30)) < 24, "as much on the left as on the right");
  }
  const tight = layout({ ...wish, rows: 3, cols: 3, height: 360, width: 300 });
  assert.equal(tight.rowTitle, 10);
  assert.ok(tight.plot.w < tight.plot.h);
});

test("text along the colour bar takes its room from the cells", () => {
  const [bare, named] = [layout(wish), layout({ ...wish, barTitle: true })];
  assert.ok(named.plot.w < bare.plot.w);
  assert.ok(named.width - named.bar!.x > bare.width - bare.bar!.x);
});

test("a height that is asked for is kept", () => assert.equal(layout({ ...wish, height: 420 }).height, 420));

test("long labels get a share of the width, not all", () => {
  const l = layout({ ...wish, rowText: 900, colText: 900 });
  assert.ok(l.plot.w > 400);
  assert.ok(l.plot.h > 200);
});

test("keys move as it looks on the screen", () => {
  assert.deepEqual(step("ArrowDown", false, [3, 3], 10, 10, false), [4, 3]);
  assert.deepEqual(step("ArrowDown", false, [3, 3], 10, 10, true), [2, 3]);
  assert.deepEqual(step("ArrowUp", true, [3, 3], 10, 10, true), [9, 3]);
  assert.deepEqual(step("Home", false, [3, 3], 10, 10, false), [3, 0]);
  assert.deepEqual(step("End", true, [3, 3], 10, 20, false), [9, 19]);
  assert.deepEqual(step("PageDown", false, [3, 3], 10, 10, false), [9, 3]);
  assert.deepEqual(step("ArrowLeft", false, [0, 0], 10, 10, false), [0, 0]);
  assert.equal(step("a", false, [0, 0], 10, 10, false), null);
});
