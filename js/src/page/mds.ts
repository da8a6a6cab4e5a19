import type { Table } from "./data.ts";
import { mean } from "./odd.ts";

/** More than this many particles would take longer than a click may. */
export const MOST = 80;

/** Eigenvalues, falling, and eigenvectors (one a row) of a symmetric matrix: cyclic Jacobi rotations. */
export function eigen(symmetric: Table): { values: number[]; vectors: Table } {
  const n = symmetric.length;
  const a = symmetric.map((row) => [...row]);
  const v: Table = a.map((_, i) => a.map((_, j) => Number(i === j)));
  const size = Math.max(...a.flat().map(Math.abs), 1e-300);
  for (let sweep = 0; sweep < 60; sweep++) {
    let moved = false;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        if (Math.abs(a[p][q]) < 1e-15 * size) continue;
        moved = true;
        const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
        const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
        const c = 1 / Math.hypot(t, 1);
        const rotate = (x: number, y: number) => [c * x - t * c * y, t * c * x + c * y];
        for (let k = 0; k < n; k++) [a[k][p], a[k][q]] = rotate(a[k][p], a[k][q]);
        for (let k = 0; k < n; k++) [a[p][k], a[q][k]] = rotate(a[p][k], a[q][k]);
        for (let k = 0; k < n; k++) [v[p][k], v[q][k]] = rotate(v[p][k], v[q][k]);
      }
    }
    if (!moved) break;
  }
  const order = a.map((_, i) => i).sort((i, j) => a[j][j] - a[i][i]);
  return { values: order.map((i) => a[i][i]), vectors: order.map((i) => v[i]) };
}

/** A choice of points among which every distance is defined: the one with most gaps leaves, again and again. */
function fullyKnown(distance: Table): number[] {
  let known = distance.map((_, i) => i);
  for (;;) {
    const gaps = known.map((i) => known.filter((j) => !Number.isFinite(distance[i][j])).length);
    const most = Math.max(0, ...gaps);
    if (!most) return known;
    const worst = known[gaps.indexOf(most)];
    known = known.filter((i) => i !== worst);
  }
}

/**
 * Points whose Euclidean distances come nearest to `distance` (classical MDS, Torgerson 1952), NaN for those with an
 * undefined one. The sign of each axis is fixed by its largest component.
 */
export function classicalMds(distance: Table, dims: number): Table {
  const known = fullyKnown(distance);
  const d2 = known.map((i) => known.map((j) => distance[i][j] ** 2));
  const rows = d2.map(mean);
  const all = mean(rows);
  const gram = d2.map((row, i) => row.map((v, j) => -0.5 * (v - rows[i] - rows[j] + all)));
  const { values, vectors } = eigen(gram);
  const coords = distance.map(() => Array<number>(dims).fill(NaN));
  known.forEach((i) => coords[i].fill(0));
  for (let k = 0; k < Math.min(dims, known.length); k++) {
    const top = vectors[k].reduce((m, v) => (Math.abs(v) > Math.abs(m) + 1e-12 ? v : m), 0);
    const scale = Math.sqrt(Math.max(values[k], 0)) * (top < 0 ? -1 : 1);
    known.forEach((i, at) => (coords[i][k] = vectors[k][at] * scale));
  }
  return coords;
}

/** Arccos of CKA, in radians: a metric between Gram matrices (Williams et al. 2021). */
export function angles(scores: Table): Table {
  return scores.map((row) => row.map((v) => Math.acos(Math.max(-1, Math.min(1, v)))));
}

/** An order that puts rows with like scores side by side, the end with the higher scores first, undefined rows last. */
function profileOrder(profiles: Table): number[] {
  const known = profiles.map((row) => row.filter(Number.isFinite));
  const means = known.map((row) => (row.length ? mean(row) : 0));
  const filled = profiles.map((row, i) => row.map((v) => (Number.isFinite(v) ? v : means[i])));
  const distance = filled.map((a) => filled.map((b) => Math.hypot(...a.map((v, k) => v - b[k]))));
  const along = classicalMds(distance, 1).map(([x]) => x);
  const middle = mean(means);
  const sign = along.reduce((sum, x, i) => sum + x * (means[i] - middle), 0) > 0 ? -1 : 1;
  const place = along.map((x) => Math.round(sign * x * 1e9));
  const last = known.map((row) => Number(!row.length));
  return profiles.map((_, i) => i).sort((i, j) => last[i] - last[j] || place[i] - place[j] || i - j);
}

/** Orders of rows and columns by similarity; with `same` both axes are the same particles and share one order. */
export function similarityOrder(scores: Table, same: boolean): [number[], number[]] {
  if (same) {
    const order = profileOrder(scores.map((row, i) => row.map((v, j) => (i === j ? 1 : v))));
    return [order, order];
  }
  return [profileOrder(scores), profileOrder(scores[0].map((_, j) => scores.map((row) => row[j])))];
}
