/** The model's contract in a page without a kernel: get, set, on, off, save_changes. */
export function model(traits) {
  const state = { ...traits };
  const listeners = new Map();
  const of = (event) => listeners.get(event) ?? listeners.set(event, new Set()).get(event);
  return {
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      for (const listener of [...of(`change:${name}`)]) listener();
    },
    on: (event, listener) => of(event).add(listener),
    off: (event, listener) => of(event).delete(listener),
    save_changes() {},
    listening: () => [...listeners.values()].reduce((sum, set) => sum + set.size, 0),
  };
}

const view = (numbers) => new DataView(Float32Array.from(numbers).buffer);

/** A heatmap's traits for two made-up networks; the scores fall off beside the diagonal. */
export function heatmap(rows, cols, more = {}) {
  const names = (n) =>
    Array.from({ length: n }, (_, i) =>
      i === 0 ? "conv1" : i === n - 1 ? "fc" : `layer${1 + Math.floor((3 * i) / n)}.${Math.floor(i / 2) % 4}.${i % 2 ? "conv" : "bn"}`,
    );
  const at = (f) => Array.from({ length: rows * cols }, (_, i) => f(Math.floor(i / cols), i % cols));
  return model({
    values: view(at((r, c) => Math.exp(-22 * (r / rows - c / cols) ** 2))),
    stderr: view(at((r, c) => 0.005 + 0.05 * (((r * 31 + c * 17) % 23) / 23) ** 3)),
    shape: [rows, cols], version: 0, row_labels: names(rows), col_labels: names(cols), row_info: [], col_info: [],
    row_name: "wide CNN", col_name: "deep CNN", row_color: "a", col_color: "b", vmin: 0, vmax: 1, auto_range: false,
    colormap: "magma", value_name: "CKA", title: "", row_reasons: [], col_reasons: [], reason: "", origin: "top",
    best_match: false, annotate: false, brackets: true, square: false, compact: false, flag_rows: [], flag_cols: [],
    uncertain_above: 0.03, settled: true, selected: [], hovered: [], theme: "auto", height: 0, ...more,
  });
}

/** A picker's traits for a made-up transformer of `blocks` blocks, eight modules each. */
export function picker(blocks, more = {}) {
  const node = (name, cls, parent, extra) => ({
    name, label: name.split(".").pop(), cls, shape: "64×256", params: 65536, calls: 1,
    depth: name.split(".").length - 1, parent, status: "ran", alias: "", why: "", ...extra,
  });
  const nodes = [];
  for (let b = 0; b < blocks; b++) {
    const parent = nodes.push(node(`block${b}`, "Block", -1, { params: 458752 })) - 1;
    for (const leaf of ["query", "key", "value", "project", "norm1", "norm2"]) {
      nodes.push(node(`block${b}.${leaf}`, leaf.startsWith("norm") ? "LayerNorm" : "Linear", parent));
    }
    nodes.push(node(`block${b}.act`, "GELU", parent, { status: "alias", alias: `block${b}` }));
  }
  return model({
    nodes, checked: nodes.filter((n) => n.status === "ran").map((n) => n.name), title: "transformer", color: "b",
    particles: 4, disabled: false, note: "", theme: "auto", max_height: 380, ...more,
  });
}
