/** Bundles each widget, and the exported page, into one ES module and one style sheet under cka_widget/static/. */
import { mkdir, readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import * as esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const outdir = join(here, "..", "cka_widget", "static");
const parts = ["heatmap", "picker", "page"];
const plain = ["pulse"]; // without a style sheet
const sources = [...parts, ...plain].map((part) => `${part}.ts`).concat(parts.map((part) => `${part}.css`));
const names = sources.map((name) => name.replace(/ts$/, "js"));

/** The exported page holds heatmap.js itself beside page.js, so page.js need not hold it too. */
const oneHeatmap = {
  name: "one heatmap",
  setup(build) {
    build.onResolve({ filter: /\/heatmap\.ts$/ }, ({ path, resolveDir }) =>
      join(resolveDir, path) === join(here, "src", "heatmap.ts") ? { path, namespace: "page" } : undefined,
    );
    const contents = "export const { render } = globalThis.ckaHeatmap;";
    build.onLoad({ filter: /./, namespace: "page" }, () => ({ contents }));
  },
};

const options = {
  entryPoints: sources.map((name) => join(here, "src", name)),
  plugins: [oneHeatmap],
  outdir,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  logLevel: "warning",
};

await mkdir(outdir, { recursive: true });
if (process.argv.includes("--watch")) {
  const context = await esbuild.context(options);
  await context.watch();
  const { port } = await context.serve({ servedir: join(here, ".."), host: "127.0.0.1" });
  console.log(`http://127.0.0.1:${port}/js/dev/ shows the widgets on their own; each save rebuilds them.`);
} else {
  await esbuild.build(options);
  let total = 0;
  let packed = 0;
  for (const name of names) {
    const path = join(outdir, name);
    const size = (await stat(path)).size;
    const small = gzipSync(await readFile(path)).length;
    if (name.endsWith(".js")) {
      total += size;
      packed += small;
    }
    console.log(`${name.padEnd(12)} ${(size / 1000).toFixed(1)} kB, ${(small / 1000).toFixed(1)} kB compressed`);
  }
  console.log(`all scripts  ${(total / 1000).toFixed(1)} kB, ${(packed / 1000).toFixed(1)} kB compressed`);
}
