"""Print the oldest versions that pyproject.toml allows: `python scripts/oldest.py`."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def oldest() -> dict[str, str]:
    """Name -> lowest version, of `dependencies` alone."""
    listed = re.search(r"^dependencies = \[\n(.*?)^\]", PROJECT.read_text(), re.M | re.S)
    assert listed is not None
    return dict(re.findall(r'^    "([\w-]+)>=([\d.]+)', listed[1], re.M))


if __name__ == "__main__":
    for name, version in oldest().items():
        print(f"{name}=={version}")
