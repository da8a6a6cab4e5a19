"""Times the explorer in a real JupyterLab with a real kernel, driven through a headless Chromium.

    python benchmarks/live.py [import] [first] [click] [stream] [run] [large]

`import`: what this package's imports add to pandas and torch. `first`: an explorer of two
ResNet-50 until its pickers are on screen. `click`: from the pointer to the changed drill-down of
8 + 8 particles. `stream`: 20 updates a second at 160 x 160 for 10 s through a runner's thread.
`run`: the same size in an explorer, computed meanwhile. `large`: 500 x 500 from the kernel to the
screen. Needs the built front end, `playwright` and JupyterLab.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import live_cells as cells
from chromium import DRAWN, ROOT, chromium, tell

sys.path.insert(0, str(ROOT / "tests"))
from browser.lab import Notebook, Server

LIMITS = {
    "import cka_widget, beyond pandas": 300.0,
    "ResNet-50, from the call to the pickers": 1000.0,
    "click to the changed text": 150.0,
    "click to the changed matrix": 150.0,
    "click to all of the drill-down in sight": 150.0,
    "stream, last from sent to drawn": 100.0,
    "500 x 500 on screen": 300.0,
}

# When something was drawn, in the clock that the kernel has too (milliseconds since 1970).
WATCH = f"""() => {{ {DRAWN}
const now = () => performance.timeOrigin + performance.now();
const seen = window.seen = {{ down: 0, panels: {{}}, last: 0, versions: [], rows: 0 }};
addEventListener("pointerdown", () => {{ seen.down = now(); }}, true);
let changed = new Set();
const note = name => {{
  if (!changed.size) drawn().then(() => {{
    seen.last = now();
    for (const one of changed) seen.panels[one] = seen.last;
    changed = new Set();
  }});
  changed.add(name);
}};
new MutationObserver(records => {{
  for (const {{ target, attributeName }} of records) {{
    if (attributeName === "data-version") {{
      const version = Number(target.dataset.version);
      drawn().then(() => seen.versions.push([now(), version]));
    }}
    const element = target.nodeType === 1 ? target : target.parentElement;
    const drill = element?.closest(".cka-drill");
    if (drill) {{
      const panel = element.closest(".cka-panel");
      note(panel ? [...panel.parentElement.children].indexOf(panel) : "text");
    }}
    if (!seen.rows && document.querySelectorAll(".cka-row").length) drawn().then(() => {{
      seen.rows ||= now();
    }});
  }}
}}).observe(document.body, {{
  subtree: true, childList: true, characterData: true, attributes: true,
}});
}}"""
PANELS = {"text": "text", "0": "matrix", "1": "pairs", "2": "columns", "3": "rows", "4": "map"}


class Lab:
    """One JupyterLab and one page, with a kernel that finds the benchmarks' models."""

    def __init__(self, home: Path, browser: Any) -> None:
        self.server = Server(home)
        shutil.copy(Path(__file__).with_name("models.py"), self.server.root)
        self.page = browser.new_page(viewport={"width": 1400, "height": 1200})
        self.notebook = Notebook(self.server, self.page)

    def run(self, name: str, source: str) -> Notebook:
        """Run a notebook of one cell, its drawing watched."""
        self.notebook.open(self.server.add(f"{name}.ipynb", [source]))
        self.page.evaluate(WATCH)
        self.notebook.run_all()
        return self.notebook

    def seen(self, name: str) -> Any:
        """What the watch has written down."""
        return self.page.evaluate(f"() => window.seen.{name}")

    def until(self, expression: str) -> None:
        """Wait for something on the page."""
        self.page.wait_for_function(expression, timeout=60_000)


def imports(rounds: int = 7) -> dict[str, float]:
    """What imports cost in a fresh Python, beyond what their users have imported before."""

    def once(before: str, line: str) -> float:
        code = (
            f"import time, {before}; t = time.perf_counter(); {line}; print(time.perf_counter()-t)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return 1000 * float(done.stdout)

    lines = {
        "import cka_widget, beyond pandas": ("pandas", "import cka_widget"),
        "cka_widget.compare, beyond torch": ("pandas, torch", "from cka_widget import compare"),
        "CKAExplorer, beyond torch": ("pandas, torch", "from cka_widget import CKAExplorer"),
    }
    return {
        name: statistics.median(once(*line) for _ in range(rounds)) for name, line in lines.items()
    }


def first(lab: Lab, rounds: int = 3) -> dict[str, float]:
    """An explorer of two ResNet-50 in a new kernel and page, from the call to drawn pickers."""
    built, shown = [], []
    for _ in range(rounds):
        book = lab.run("first", cells.FIRST)
        lab.until("() => window.seen.rows")
        began = 1000 * book.value("began")
        built.append(1000 * book.value("built") - began)
        shown.append(lab.seen("rows") - began)
        book.close()
    return {
        "ResNet-50, the call itself": statistics.median(built),
        "ResNet-50, from the call to the pickers": statistics.median(shown),
    }


def click(lab: Lab, clicks: int = 11) -> dict[str, float]:
    """Click cells of a finished comparison; the first click opens the drill-down."""
    lab.run("click", cells.ENSEMBLES)
    page = lab.page
    stage = page.locator(".cka-middle .cka-stage")
    lab.until("() => document.querySelector('.cka-middle .cka-stage')?.dataset.version > 0")
    stage.scroll_into_view_if_needed()
    page.wait_for_timeout(2000)
    rows, cols = lab.notebook.value("explorer.heatmap.shape")
    times: dict[str, list[float]] = {}
    for k in range(clicks):
        box = stage.bounding_box()
        x, y, width, height = map(float, stage.get_attribute("data-plot").split())
        col, row = (3 * k + 1) % cols, (4 * k + 2) % rows
        at = box["x"] + x + (col + 0.5) * width / cols, box["y"] + y + (row + 0.5) * height / rows
        page.mouse.move(*at)
        page.wait_for_timeout(300)
        page.evaluate("() => { window.seen.panels = {}; }")
        page.mouse.click(*at)
        page.wait_for_timeout(1200)
        down, panels = lab.seen("down"), lab.seen("panels")
        for key, name in PANELS.items():
            times.setdefault(name, []).append(panels.get(key, float("nan")) - down)
        in_sight = page.evaluate(IN_SIGHT)
        times.setdefault("in sight", []).append(max(panels[key] - down for key in in_sight))
        times.setdefault("all", []).append(max(panels.values()) - down)
    middle = {name: statistics.median(each[1:]) for name, each in times.items()}
    return {
        "first click, to all of the drill-down": times["all"][0],
        **{f"click to the changed {name}": middle[name] for name in PANELS.values()},
        "click to all of the drill-down in sight": middle["in sight"],
        "click to all of the drill-down": middle["all"],
    }


IN_SIGHT = """() => {
  const drill = document.querySelector(".cka-drill").getBoundingClientRect();
  const panels = [...document.querySelectorAll(".cka-panel")];
  const seen = panels.map((panel, k) => [String(k), panel.getBoundingClientRect()])
    .filter(([k, box]) => box.height > 0 && box.top < Math.min(drill.bottom, innerHeight));
  return ["text", ...seen.map(([k]) => k)].filter(k => k in window.seen.panels);
}"""


def stream(lab: Lab) -> dict[str, float]:
    """20 updates a second at 160 x 160 for 10 s through a runner's thread."""
    return followed(lab, "stream", cells.STREAM, "runner.start(frames)", "runner")


def run(lab: Lab) -> dict[str, float]:
    """A batch every 50 ms for 10 s through an explorer of 160 x 160 layers."""
    return followed(lab, "run", cells.RUN, "explorer.run()", "explorer")


def followed(lab: Lab, name: str, source: str, start: str, who: str) -> dict[str, float]:
    """Which versions of a heatmap were sent, in `sent`, and when each was drawn."""
    book = lab.run(name, source)
    lab.until("() => document.querySelector('.cka-stage')")
    book.execute(start)
    time.sleep(10)
    book.wait_for_value(f"{who}.state == 'done'")
    lab.page.wait_for_timeout(1500)
    sent = {number: at for at, number in book.value("sent")}
    drawn = lab.seen("versions")
    delays = {number: at - sent[number] for at, number in reversed(drawn) if number in sent}
    seconds = (max(sent.values()) - min(sent.values())) / 1000
    print(f"{name}: {len(sent)} updates in {seconds:.1f} s, {len(delays)} of them drawn")
    return {
        f"{name}, from sent to drawn": statistics.median(delays.values()),
        f"{name}, longest from sent to drawn": max(delays.values()),
        f"{name}, last from sent to drawn": delays.get(max(sent), float("inf")),
    }


def large(lab: Lab, updates: int = 11) -> dict[str, float]:
    """500 x 500: displayed in a page that has a heatmap, then written anew, errors and all."""
    book = lab.run("large", cells.LARGE)
    lab.until("() => window.seen.versions.length")
    lab.page.wait_for_timeout(1000)
    shown, delays = [], []
    for _ in range(5):
        lab.page.evaluate("() => { window.seen.versions = []; }")
        book.execute(cells.LARGE_SHOWN)
        lab.until("() => window.seen.versions.length")
        shown.append(lab.seen("versions")[0][0] - book.value("began"))
        lab.page.wait_for_timeout(300)
    for k in range(updates):
        lab.page.evaluate("() => { window.seen.versions = []; }")
        book.execute(
            f"began = 1000 * time.time(); "
            f"heatmap.set_data(np.roll(scores, {k + 1}), errors + {k} / 1e4)"
        )
        lab.until("() => window.seen.versions.length")
        delays.append(lab.seen("versions")[0][0] - book.value("began"))
        lab.page.wait_for_timeout(300)
    return {
        "500 x 500 on screen": statistics.median(shown),
        "500 x 500 written anew (2 MB), to drawn": statistics.median(delays),
    }


def main() -> None:
    """Print a table for each part; exit with 1 where a limit is passed."""
    parts = {"first": first, "click": click, "stream": stream, "run": run, "large": large}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", choices=["import", *parts, []])
    chosen = parser.parse_args().parts or ["import", *parts]
    good = True
    if "import" in chosen:
        good &= tell(imports(), LIMITS)
    if set(chosen) & set(parts):
        with tempfile.TemporaryDirectory() as home, chromium() as browser:
            lab = Lab(Path(home), browser)
            try:
                for name in (name for name in parts if name in chosen):
                    good &= tell(parts[name](lab), LIMITS)
            finally:
                lab.server.stop()
    sys.exit(not good)


if __name__ == "__main__":
    main()
