import assert from "node:assert/strict";
import { test } from "node:test";
import { index, rgb, table } from "../src/heatmap/colour.ts";
import { bestPerRow, doubt, extent, grid } from "../src/heatmap/grid.ts";
import { pixels } from "../src/heatmap/raster.ts";
import { floats } from "../src/shared/model.ts";

const f = (...v: number[]) => Float32Array.from(v);

test("buffers are read at their offset, aligned or not", () => {
  for (const offset of [0, 4, 3]) {
    const bytes = new Uint8Array(offset + 12);
    bytes.set(new Uint8Array(f(0.5, -1, 2).buffer), offset);
    assert.deepEqual([...floats(new DataView(bytes.buffer, offset, 12))], [0.5, -1, 2]);
  }
  assert.deepEqual([...floats(f(1, 2).buffer as ArrayBuffer)], [1, 2]);
  assert.equal(floats(null).length, 0);
});

test("a grid waits until shape and numbers fit", () => {
  assert.equal(grid([2, 2], f(1, 2, 3), f()), null);
  const g = grid([1, 3], f(1, 2, 3), f(1));
  assert.deepEqual([g?.rows, g?.cols, g?.stderr.length], [1, 3, 0]);
});

test("range and best match pass over what is undefined", () => {
  const g = grid([3, 2], f(NaN, 0.25, 0.75, 0.5, NaN, NaN), f())!;
  assert.deepEqual(extent(g), [0.25, 0.75]);
  assert.deepEqual([...bestPerRow(g)], [1, 0, -1]);
  assert.deepEqual(extent(grid([1, 1], f(NaN), f())!), [0, 1]);
  assert.deepEqual(extent(grid([1, 1], f(2), f())!), [1.5, 2.5]);
});

test("doubt falls with the error and is gone below the limit", () => {
  assert.equal(doubt(0.02, 0.03), 0);
  assert.equal(doubt(0.06, 0.03), 0.5);
  assert.ok(doubt(0.3, 0.03) > doubt(0.1, 0.03));
  assert.equal(doubt(NaN, 0.03), 1);
});

const shade = { colours: table("magma"), vmin: 0, vmax: 1, fade: 0, limit: 0.03, paper: [255, 255, 255] as const };

test("one pixel a cell, row-major, undefined ones see-through", () => {
  const g = grid([2, 3], f(0, 1, NaN, 0.5, 0.5, 0.5), f())!;
  const out = pixels(g, { ...shade, bottom: false });
  assert.equal(out.length, 6);
  assert.equal(out[0], 0xff040000);
  assert.equal(out[1], 0xffbffdfc);
  assert.equal(out[2], 0);
  const upside = pixels(g, { ...shade, bottom: true });
  assert.deepEqual([...upside.slice(3)], [...out.slice(0, 3)]);
});

test("an unknown error fades a cell, and all the way with fade 1", () => {
  const g = grid([1, 2], f(0, 0), f(NaN, 0.001))!;
  const out = pixels(g, { ...shade, bottom: false, fade: 1 });
  assert.deepEqual([...out], [0xffffffff, 0xff040000]);
});

test("every pixel has the colour and the fading that its number and error ask for", () => {
  const values = f(-0.5, 0, 0.0019, 0.002, 0.25, 0.5, 0.751, 0.999, 1, 3, 1e30, -1e30);
  for (const [vmin, vmax] of [[0, 1], [-0.25, 0.8], [0.5, 0.5]]) {
    const errors = values.map((_, i) => [0.001, 0.03, 0.06, 0.5, NaN][i % 5]);
    const out = pixels(grid([3, 4], values, errors)!, { ...shade, vmin, vmax, bottom: false, fade: 1 });
    values.forEach((v, i) => {
      const u = Math.round(doubt(errors[i], 0.03) * 15) / 15;
      const [r] = rgb(shade.colours, index(v, vmin, vmax));
      assert.ok(Math.abs((out[i] & 255) - (r + (255 - r) * u)) <= 1, `${v} in ${vmin} to ${vmax}`);
    });
  }
});
