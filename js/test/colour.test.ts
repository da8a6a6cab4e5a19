import assert from "node:assert/strict";
import { test } from "node:test";
import { index, ink, parse, rgb, table } from "../src/heatmap/colour.ts";

const luminance = ([r, g, b]: readonly number[]) => 0.2126 * r + 0.7152 * g + 0.0722 * b;

test("magma runs from black to pale yellow through matplotlib's middle", () => {
  const magma = table("magma");
  assert.deepEqual(rgb(magma, 0), [0, 0, 4]);
  assert.deepEqual(rgb(magma, 255), [252, 253, 191]);
  const middle = rgb(magma, 128);
  [183, 55, 121].forEach((want, k) => assert.ok(Math.abs(middle[k] - want) <= 3, `${middle}`));
});

for (const name of ["magma", "cividis", "viridis"]) {
  test(`${name} gets lighter with every step of eight`, () => {
    const colours = table(name);
    for (let i = 8; i < 256; i += 8) assert.ok(luminance(rgb(colours, i)) > luminance(rgb(colours, i - 8)), `${i}`);
  });
}

test("an unknown map is magma", () => assert.deepEqual(table("jet"), table("magma")));

test("values outside the range take the end colours", () => {
  assert.equal(index(-0.2, 0, 1), 0);
  assert.equal(index(1.7, 0, 1), 255);
  assert.equal(index(0.5, 0, 1), 128);
  assert.equal(index(3, 2, 2), 128);
});

test("ink keeps a contrast of at least 4.5 on every colour of every map", () => {
  const linear = (v: number) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  for (const name of ["magma", "cividis", "viridis"]) {
    const colours = table(name);
    for (let i = 0; i < 256; i++) {
      const c = rgb(colours, i);
      const y = 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
      const contrast = ink(c) === "#ffffff" ? 1.05 / (y + 0.05) : (y + 0.05) / 0.05;
      assert.ok(contrast >= 4.5, `${name} ${i}: ${contrast}`);
    }
  }
});

test("colours of style sheets are read", () => {
  assert.deepEqual(parse("#102030"), [16, 32, 48]);
  assert.deepEqual(parse(" #fff "), [255, 255, 255]);
  assert.deepEqual(parse("rgba(1, 2, 3, 0.5)"), [1, 2, 3]);
  assert.deepEqual(parse("hotpink"), [128, 128, 128]);
});
