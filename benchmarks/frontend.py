"""Times the heatmap and the picker in a headless Chromium, without a kernel.

Prints a table: time until the pixels stand, in milliseconds, beside its limit, and the size of the
scripts. Needs the built front end and `playwright`; run it as `python benchmarks/frontend.py`.
"""

from __future__ import annotations

import functools
import gzip
import http.server
import sys
import threading
from typing import Any

from chromium import DRAWN, ROOT, chromium, tell

LIMITS = {
    "500 x 500 on screen": 300.0,
    "500 x 500 full update": 60.0,
    "500 x 500 hover to tooltip": 20.0,
    "picker of 2,000 opens": 300.0,
    "picker of 2,000 filters": 50.0,
}

COMMON = f"""{DRAWN}
const {{ default: widget }} = await import(`/cka_widget/static/${{name}}.js`);
const demo = await import("/js/dev/model.js");
const box = document.createElement("div");
document.body.replaceChildren(box);
const middle = list => [...list].sort((a, b) => a - b)[list.length >> 1];
const timed = async act => {{
  const t = performance.now();
  act();
  await drawn();
  return performance.now() - t;
}};
"""

HEATMAP = """
const model = demo.heatmap(n, n);
const other = demo.heatmap(n, n, { stderr: new DataView(new ArrayBuffer(0)) });
const first = await timed(() => widget.render({ model, el: box }));
const updates = [];
for (let k = 0; k < 21; k++) updates.push(await timed(() => {
  const from = k % 2 ? model : other;
  model.set("values", new DataView(from.get("values").buffer.slice(0)));
  model.set("version", k + 1);
}));
const stage = box.querySelector(".cka-stage");
const { left, top } = stage.getBoundingClientRect();
const hovers = [];
for (let k = 0; k < 21; k++) {
  const t = performance.now();
  const at = { clientX: left + 200 + 9 * k, clientY: top + 60 + 7 * k, pointerId: 1 };
  stage.dispatchEvent(new PointerEvent("pointermove", at));
  box.querySelector(".cka-tip").getBoundingClientRect();
  hovers.push(performance.now() - t);
  await drawn();
}
return { first, update: middle(updates), hover: middle(hovers) };
"""

PICKER = """
const model = demo.picker(n / 8);
const open = await timed(() => widget.render({ model, el: box }));
const input = box.querySelector("input");
const filters = [];
for (const query of ["l", "li", "linear", "linear 24", "query 1", "norm", "*7.act", "none", ""]) {
  filters.push(await timed(() => {
    input.value = query;
    input.dispatchEvent(new Event("input"));
  }));
}
return { open, filter: middle(filters) };
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the repository and says nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def measure() -> dict[str, float]:
    """Return the milliseconds of each step, by name."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=ROOT)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    times: dict[str, float] = {}
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1100, "height": 900})

        def run(name: str, n: int, body: str) -> Any:
            # Any text of the same origin will do as a page.
            page.goto(f"http://127.0.0.1:{server.server_port}/js/dev/model.js")
            for kind in ("heatmap", "picker"):
                page.add_style_tag(path=ROOT / "cka_widget" / "static" / f"{kind}.css")
            return page.evaluate(f"async ([name, n]) => {{ {COMMON} {body} }}", [name, n])

        for n in (160, 500, 1000):
            got = run("heatmap", n, HEATMAP)
            times[f"{n} x {n} on screen"] = got["first"]
            times[f"{n} x {n} full update"] = got["update"]
            times[f"{n} x {n} hover to tooltip"] = got["hover"]
        got = run("picker", 2000, PICKER)
        times["picker of 2,000 opens"] = got["open"]
        times["picker of 2,000 filters"] = got["filter"]
    server.shutdown()
    return times


def main() -> None:
    """Print the table; exit with 1 where a limit is passed."""
    good = tell(measure(), LIMITS)
    sizes = [p.read_bytes() for p in (ROOT / "cka_widget" / "static").glob("*.js")]
    plain, packed = sum(map(len, sizes)), sum(len(gzip.compress(s)) for s in sizes)
    scripts = {"all scripts": plain / 1000, "all scripts compressed": packed / 1000}
    good &= tell(scripts, {"all scripts": 120, "all scripts compressed": 40}, "kB")
    sys.exit(not good)


if __name__ == "__main__":
    main()
