"""The old environment holds what it is there to hold."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import ipywidgets
import pytest

HERE = Path(__file__).parent
PINS = dict(re.findall(r"^([\w-]+)==([\d.]+)", (HERE / "requirements.txt").read_text(), re.M))


@pytest.mark.parametrize("package", ["ipywidgets", "anywidget", "bqplot"])
def test_the_oldest_versions_that_users_may_have_are_the_ones_tested(package: str) -> None:
    project = (HERE.parents[1] / "pyproject.toml").read_text()
    lowest = re.search(rf'^    "{package}>=([\d.]+)', project, re.M)
    assert lowest is not None
    assert PINS[package] == lowest[1]


@pytest.mark.skipif(not ipywidgets.__version__.startswith("7."), reason="in .venv-old alone")
def test_the_environment_has_them() -> None:
    assert {package: version(package) for package in PINS} == PINS
