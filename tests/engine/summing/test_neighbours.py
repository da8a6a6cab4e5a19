"""Samples that depend on their neighbours are told, others are not."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from checks import run
from oracles import linear_gram
from shipped import script
from torch import Tensor, nn

from cka_widget.engine.summing.neighbours import votes

SAID = "Neighbouring samples"


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    return script("benchmarks/dependence.py")


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4))


def _told(x: Tensor, labels: Tensor | None = None, batch: int = 64, **options: object) -> bool:
    parts = list(x.split(batch))
    loader = parts if labels is None else list(zip(parts, labels.split(batch), strict=True))
    result = run({"a": _net()}, loader, **options)
    return any(SAID in sentence for sentence in result.warnings)


@pytest.mark.parametrize("m", [4, 5, 7, 8, 33])
def test_votes_are_those_of_the_definition(m: int) -> None:
    x = torch.randn(3, 2, m, 5)  # rows, blocks
    found = votes(x @ x.mT).numpy()
    half = m // 2
    for block in range(2):
        grams = [linear_gram(part[block].numpy()) for part in x]
        for number, i in enumerate(range(0, half - 1, 2)):
            j = i + half
            d = [k[i, i + 1] + k[j, j + 1] - k[i, j] - k[i + 1, j + 1] for k in grams]
            assert found[block, number] == np.sign(d).sum()
    assert found.shape[1] == len(range(0, half - 1, 2))


def test_of_many_rows_some_are_looked_at() -> None:
    x = torch.randn(40, 1, 16, 3)
    assert torch.equal(votes(x @ x.mT), votes(x[::3] @ x[::3].mT))


def test_two_samples_that_change_places_turn_a_vote() -> None:
    x = torch.randn(1, 1, 16, 3)
    turned = x[:, :, [0, 8, 2, 3, 4, 5, 6, 7, 1, *range(9, 16)]]
    before, after = votes(x @ x.mT), votes(turned @ turned.mT)
    assert after[0, 0] == -before[0, 0] != 0
    assert (after[0, 1:] == before[0, 1:]).all()


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("options", [{}, {"unbiased": False}, {"hsic_batch_size": 23}])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_a_series_is_told_and_its_samples_in_random_order_are_not(
    simulation: ModuleType, kernel: str, options: dict[str, object], offset: float
) -> None:
    x = simulation.series(0.95)(torch.Generator().manual_seed(1), 1, 640)[0] + offset
    assert _told(x, kernel=kernel, **options)
    shuffled = x[torch.randperm(len(x))]
    assert not _told(shuffled, kernel=kernel, **options)


def test_clips_are_told_by_the_last_snapshot_and_after_merging(simulation: ModuleType) -> None:
    x = simulation.clips(8)(torch.Generator().manual_seed(1), 1, 640)[0]
    models = {"a": _net()}
    first, second = (run(models, list(part.split(32))) for part in (x[:320], x[320:]))
    assert sum(SAID in sentence for sentence in first.merge(second).warnings) == 1


def test_classes_in_a_row_are_told_once() -> None:
    labels = torch.arange(10).repeat_interleave(64)
    x = nn.functional.one_hot(labels, 16) + 0.3 * torch.randn(640, 16)
    batches = list(zip(x.split(128), labels.split(128), strict=True))
    result = run({"a": _net()}, batches)
    assert any("sorted by class" in sentence for sentence in result.warnings)
    assert not any(SAID in sentence for sentence in result.warnings)
    assert _told(x.repeat(2, 1).float(), batch=128)  # without labels


def test_a_batch_that_comes_again_has_no_further_votes() -> None:
    """Six of eight votes are no news, sixty of eighty would be; of 40 such data none is told."""
    assert not any(_told(torch.randn(32, 16).repeat(10, 1), batch=32) for _ in range(40))


def test_blocks_of_three_and_layers_without_numbers_have_no_vote() -> None:
    assert not _told(torch.randn(60, 16).cumsum(0), batch=3, unbiased=False)
    assert not _told(torch.full((640, 16), torch.nan))
    assert not _told(torch.ones(640, 16))


@pytest.mark.parametrize("population", ["normal", "log-normal length", "fires on 5% of samples"])
@pytest.mark.parametrize("kind", ["1 layer, 1-D", "12 layers, 16-D"])
def test_independent_samples_are_seldom_told(
    simulation: ModuleType, population: str, kind: str
) -> None:
    """At most 1% of draws by Hoeffding's bound; of 100 more than 7 come once in 10,000 times."""
    sizes, layers = simulation.SIZES["10x32"], simulation.LAYERS[kind]
    assert simulation.told(simulation.INDEPENDENT[population], sizes, layers, 100) <= 0.07


@pytest.mark.parametrize("population", ["AR(0.95)", "AR(0.7)", "clips of 8", "runs of 16"])
def test_dependent_samples_are_told(simulation: ModuleType, population: str) -> None:
    draw, layers = simulation.DEPENDENT[population], simulation.LAYERS["12 layers, 16-D"]
    assert simulation.told(draw, simulation.SIZES["10x32"], layers, 20) == 1


def test_batches_that_all_say_the_same_are_no_batch_seen_twice() -> None:
    """Samples so dependent that every set of four votes alike, in every batch."""
    torch.manual_seed(0)
    walk = torch.randn(320, 8).cumsum(0)
    result = run({"a": nn.Sequential(nn.Linear(8, 8))}, list(walk.split(32)))
    assert any("Neighbouring samples" in sentence for sentence in result.warnings)
