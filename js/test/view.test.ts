import assert from "node:assert/strict";
import { test } from "node:test";
import { cellRect, flip, hit, isWhole, pan, reveal, whole, zoom } from "../src/heatmap/view.ts";

const size = { rows: 20, cols: 30 };
const plot = { x: 100, y: 10, w: 600, h: 200 };

test("a zoom leaves the point under the pointer where it is", () => {
  const before = whole(size);
  for (const [fx, fy] of [[0.25, 0.75], [0.5, 0.5], [0, 1]]) {
    const after = zoom(before, size, fx, fy, 2);
    assert.equal(after.rows, 10);
    assert.equal(after.cols, 15);
    assert.ok(Math.abs(after.left + fx * after.cols - fx * 30) < 1e-9);
    assert.ok(Math.abs(after.top + fy * after.rows - fy * 20) < 1e-9);
  }
});

test("zooming in and out again ends with the whole matrix", () => {
  let view = whole(size);
  for (let i = 0; i < 50; i++) view = zoom(view, size, 0.3, 0.9, 1.3);
  assert.deepEqual([view.rows, view.cols], [3, 3]);
  for (let i = 0; i < 50; i++) view = zoom(view, size, 0.8, 0.1, 1 / 1.3);
  assert.deepEqual(view, whole(size));
  assert.ok(isWhole(view, size));
});

test("a view never leaves the matrix", () => {
  const near = zoom(whole(size), size, 0.5, 0.5, 2);
  assert.deepEqual(pan(near, size, -100, 100), { top: 0, left: 15, rows: 10, cols: 15 });
  assert.deepEqual(pan(near, size, 100, -100), { top: 10, left: 0, rows: 10, cols: 15 });
});

test("revealing a cell moves as little as possible", () => {
  const near = { top: 5, left: 5, rows: 5, cols: 5 };
  assert.deepEqual(reveal(near, size, 7, 7), near);
  assert.deepEqual(reveal(near, size, 12, 2), { ...near, top: 8, left: 2 });
});

test("a point in the plot is one cell, a point outside is none", () => {
  const all = whole(size);
  assert.deepEqual(hit(all, size, plot, 100, 10), [0, 0]);
  assert.deepEqual(hit(all, size, plot, 699.9, 209.9), [19, 29]);
  assert.deepEqual(hit(all, size, plot, 100 + 3.5 * 20, 10 + 7.5 * 10), [7, 3]);
  assert.equal(hit(all, size, plot, 700, 100), null);
  assert.equal(hit(all, size, plot, 99, 100), null);
});

test("the middle of every cell's rectangle hits that cell, at any zoom", () => {
  for (const view of [whole(size), { top: 3.3, left: 10.7, rows: 6.1, cols: 9.9 }]) {
    for (let r = Math.ceil(view.top); r < view.top + view.rows - 1; r++) {
      for (let c = Math.ceil(view.left); c < view.left + view.cols - 1; c++) {
        const box = cellRect(view, plot, r, c, 2);
        assert.deepEqual(hit(view, size, plot, box.x + box.w / 2, box.y + box.h / 2), [r, c]);
      }
    }
  }
});

test("cells share their edges on device pixels", () => {
  for (const dpr of [1, 1.5, 2]) {
    for (let c = 0; c < 29; c++) {
      const box = cellRect(whole({ rows: 7, cols: 30 }), { ...plot, w: 571 }, 0, c, dpr);
      const next = cellRect(whole({ rows: 7, cols: 30 }), { ...plot, w: 571 }, 0, c + 1, dpr);
      assert.ok(Math.abs(box.x + box.w - next.x) < 1e-9);
      assert.ok(Math.abs(box.x * dpr - Math.round(box.x * dpr)) < 1e-9);
    }
  }
});

test("the first row is on top or at the bottom", () => {
  assert.equal(flip(0, 20, false), 0);
  assert.equal(flip(0, 20, true), 19);
  assert.equal(flip(flip(4, 20, true), 20, true), 4);
});
