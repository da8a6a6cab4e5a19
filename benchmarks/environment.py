"""An environment of its own for the benchmarks, with the peers beside this project's needs.

    python benchmarks/environment.py [--into .bench]

The peers are installed without their dependencies: theirs are met by the first line, and nothing
may replace the torch release that constraints.txt pins. The fork of torch-cka with `EnsembleCKA`
is in no package index: clone smerkousdavid/Torch-Ensemble-CKA and give `peers.py --fork PATH`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What this project's engine and the peers import.
NEEDS = ["torch", "numpy", "pandas", "safetensors", "tqdm", "matplotlib", "pyyaml", "seaborn"]
PEERS = ["torch-cka==0.21", "pytorch-cka==1.1.3", "ckatorch==1.0.3"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=ROOT / ".bench")
    into = parser.parse_args().into
    venv.create(into, with_pip=True)
    python = into / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), *NEEDS], check=True)
    subprocess.run([*pip, "--no-deps", *PEERS], check=True)
    print(f"now: {python} benchmarks/peers.py --quick")


if __name__ == "__main__":
    main()
