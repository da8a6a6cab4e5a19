"""The lowest versions in pyproject.toml are those that `make test-oldest` tests."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from oldest import PROJECT, oldest

HERE = Path(sys.prefix).name == ".venv-oldest"


def test_every_dependency_has_a_lowest_version() -> None:
    listed = re.search(r"^dependencies = \[$(.*?)^\]", PROJECT.read_text(), re.M | re.S)
    assert listed is not None
    names = re.findall(r'"([\w-]+)', listed[1])
    assert "torch" in names
    assert names == list(oldest())


@pytest.mark.skipif(not HERE, reason="in .venv-oldest alone, by make test-oldest")
@pytest.mark.parametrize("name", list(oldest()))
def test_the_environment_has_it(name: str) -> None:
    wanted, found = oldest()[name], version(name).partition("+")[0]
    assert found.split(".")[: len(wanted.split("."))] == wanted.split(".")
    assert set(found.split(".")[len(wanted.split(".")) :]) <= {"0"}
