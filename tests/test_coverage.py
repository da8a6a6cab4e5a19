"""The shipped simulation of the error bars, in small; benchmarks/coverage.py has it in full."""

from __future__ import annotations

from types import ModuleType

import pytest
from shipped import script

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    return script("benchmarks/coverage.py")


@pytest.mark.parametrize("number", range(5))
def test_intervals_cover(simulation: ModuleType, number: int) -> None:
    """150 runs tell a share of 95% to 2 points or so: cells of a run go together."""
    setting = simulation.QUICK[number]
    found = simulation.simulate(setting, runs=150, seed=number)
    for kind in ("pairs", "means"):
        assert 0.92 <= found.interval[kind] <= 0.98, (setting, found)
    if setting.stop_at_stderr is not None:
        assert found.blocks < setting.blocks


def test_a_fixed_factor_would_not_do_at_few_blocks(simulation: ModuleType) -> None:
    found = simulation.simulate(simulation.Setting("clusters", 32, 5), runs=100)
    assert found.normal["pairs"] < 0.92 < found.interval["pairs"]
