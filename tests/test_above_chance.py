"""The shipped simulation of "above chance", in small; benchmarks/above_chance.py has it in full."""

from __future__ import annotations

from types import ModuleType

import pytest
from shipped import script

UNEVEN = ["log-normal, 1-D", "fires on 5% of samples, 16-D", "fires on 5% of samples, 1-D"]


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    return script("benchmarks/above_chance.py")


@pytest.mark.parametrize("population", ["normal, 16-D", *UNEVEN])
@pytest.mark.parametrize("sizes", [[32] * 9 + [4], [48] * 3, [100, 100]])
def test_the_simulation_sums_as_a_run_does(
    simulation: ModuleType, population: str, sizes: list[int]
) -> None:
    assert simulation.check(population, sizes) < 1e-5


@pytest.mark.parametrize(
    ("population", "sizes"),
    [
        ("normal, 1-D", "9x32+4"),
        ("log-normal length, 16-D", "10x32"),
        *((population, "10x32") for population in UNEVEN),
    ],
)
def test_chance_is_seldom_called_above_chance(
    simulation: ModuleType, population: str, sizes: str
) -> None:
    """At most 2% of runs; of 200 with that rate more than 13 come once in 20,000 times."""
    draw, blocks = simulation.POPULATIONS[population], simulation.SIZES[sizes]
    before, now, *_ = simulation.rates(draw, blocks, 200)
    assert now <= 13 / 200
    assert before > now  # what the blocks are is not all that counts


@pytest.mark.parametrize(("width", "score"), [(16, 0.05), (1, 0.2)])
def test_what_is_alike_is_found(simulation: ModuleType, width: int, score: float) -> None:
    """No less than by the rule that took all blocks for alike."""
    draw = simulation.sharing(width, score)
    *_, before, now = simulation.rates(draw, simulation.SIZES["10x32"], 50)
    assert now >= before - 0.02
    assert now > 0.2
