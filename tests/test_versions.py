"""One version, wherever it is written."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path

import cka_widget

ROOT = Path(__file__).resolve().parents[1]


def test_python_and_javascript_agree() -> None:
    package = json.loads((ROOT / "js/package.json").read_text())
    lock = json.loads((ROOT / "js/package-lock.json").read_text())
    assert package["version"] == cka_widget.__version__
    assert lock["version"] == lock["packages"][""]["version"] == cka_widget.__version__


def test_the_installed_metadata_agree() -> None:
    assert version("cka-widget") == cka_widget.__version__


def test_the_changelog_knows_it() -> None:
    headings = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1] == cka_widget.__version__
