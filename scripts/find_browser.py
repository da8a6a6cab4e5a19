"""Finds a Chromium for the browser tests; with --fetch gets one where there is none.

Order: $CKA_WIDGET_BROWSER, a browser of the system, Playwright's own; when fetching, Playwright's
download, then the system's packages (as root).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
ADVICE = "install Chromium or Google Chrome, or name one in CKA_WIDGET_BROWSER"


def works(path: str | None) -> bool:
    """Whether the program starts (a download may lack libraries, a stub may be empty)."""
    if not path:
        return False
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def playwrights_own() -> str | None:
    """Where Playwright would keep the Chromium it downloads."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


def find() -> str | None:
    """Path of a Chromium that starts, or None."""
    named = os.environ.get("CKA_WIDGET_BROWSER")
    if named:
        return named if works(named) else None
    for name in NAMES:
        path = shutil.which(name)
        if works(path):
            return path
    path = playwrights_own()
    return path if works(path) else None


def attempt(*command: str, timeout: int = 600) -> bool:
    """Run a command that may fail, be refused or hang; its first error line is shown."""
    print("  " + " ".join(command), flush=True)
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    try:
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"  did not work: {error}")
        return False
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        said = [line for line in lines if line.lower().startswith(("error", "e:"))] or lines
        print(f"  did not work: {said[0] if said else done.returncode}")
    return done.returncode == 0


def fetch() -> None:
    """Try Playwright's download, then the system's packages."""
    if attempt(sys.executable, "-m", "playwright", "install", "chromium") and find():
        return
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        attempt("apt-get", "update", "-qq")
        packages = ("chromium", "fonts-dejavu-core")
        attempt("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)


def main() -> int:
    """Print the path; status 1 and one line of advice where there is none."""
    path = find()
    if path is None and "--fetch" in sys.argv[1:]:
        print("no Chromium here, fetching one:", flush=True)
        fetch()
        path = find()
    if path is None:
        print(f"no browser: {ADVICE}.", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
