/** Bundles each widget into one ES module and one style sheet under cka_widget/static/. */
import { mkdir, readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import * as esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const outdir = join(here, "..", "cka_widget", "static");
const names = ["heatmap.js", "heatmap.css", "picker.js", "picker.css"];

const options = {
  entryPoints: ["heatmap.ts", "heatmap.css", "picker.ts", "picker.css"].map((f) => join(here, "src", f)),
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
