"""A headless Chromium for the benchmarks of the front end, and how their figures are printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from find_browser import ADVICE, find  # noqa: E402  (scripts/ is no package)

DRAWN = """
// A message posted in an animation frame arrives after that frame was drawn.
const drawn = () => new Promise(done => requestAnimationFrame(() => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = done;
  port2.postMessage(0);
}));
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window; the script ends with a line of advice where there is none."""
    path = find()
    if path is None:
        sys.exit(f"no browser: {ADVICE}.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def tell(figures: Mapping[str, float], limits: Mapping[str, float], unit: str = "ms") -> bool:
    """Print a table, the load of the machine above it; True where no limit is passed."""
    print(f"load average {os.getloadavg()[0]:.1f}")
    for name, figure in figures.items():
        limit = f"   limit {limits[name]:g}" if name in limits else ""
        print(f"{name:<46}{figure:8.1f} {unit}{limit}")
    return all(figures[name] <= limit for name, limit in limits.items() if name in figures)
