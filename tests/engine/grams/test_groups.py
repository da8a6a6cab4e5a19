"""`groups=`: blocks without two samples of a group, and error bars over groups."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from checks import run
from oracles import delta_stderr, hsic_biased, hsic_song, linear_gram
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from cka_widget.engine.errors import CompareError
from cka_widget.engine.grams.groups import arrange
from cka_widget.result.result import load
from cka_widget.result.sums import ARRAYS


def _net(out: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, out))


def _clips(count: int, frames: int, shared: float = 0.8) -> tuple[Tensor, list[str]]:
    clip = torch.arange(count).repeat_interleave(frames)
    own = torch.randn(count * frames, 8)
    x = shared**0.5 * torch.randn(count, 8)[clip] + (1 - shared) ** 0.5 * own
    return x, [f"clip {number}" for number in clip.tolist()]


def _by_hand(values: list[Any], size: int, least: int) -> list[list[list[int]]]:
    """Clusters of blocks of samples, of one batch; groups are cut into lots as blocks are."""
    names = list(dict.fromkeys(values))
    lots = max(1, min(-(-len(names) // size), len(names) // least))
    clusters = []
    for lot in np.array_split(np.arange(len(names)), lots):
        queues = [[i for i, v in enumerate(values) if v == names[g]] for g in lot]
        blocks = []
        while sum(map(bool, queues)) >= least:
            blocks.append([queue.pop(0) for queue in queues if queue])
        clusters.append(blocks)
    return clusters


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("size", [100, 7])
@pytest.mark.parametrize("frames", ["even", "ragged", "mixed up"])
def test_scores_and_errors_are_those_of_blocks_built_by_hand(
    unbiased: bool, size: int, frames: str
) -> None:
    rng = np.random.default_rng(3)
    batches, groups = [], []
    for batch in range(6):
        lengths = [3] * 20 if frames == "even" else rng.integers(1, 6, 20)
        values = [f"{batch}-{clip}" for clip, n in enumerate(lengths) for _ in range(n)]
        if frames == "mixed up":
            rng.shuffle(values)
        groups.append(values)
        batches.append(torch.randn(len(values), 8) + len(batches))
    models = {"a": _net(), "b": _net(3)}
    result = run(
        models,
        batches,
        groups=list(itertools.chain(*groups)),
        hsic_batch_size=size,
        unbiased=unbiased,
    )
    hsic, least = (hsic_song, 4) if unbiased else (hsic_biased, 2)
    rows, weights, used = [], [], 0
    for x, values in zip(batches, groups, strict=True):
        with torch.no_grad():
            a, b = (models[name](x).numpy() for name in "ab")
        for blocks in _by_hand(values, size, least):
            found = []
            for block in blocks:
                assert len({values[sample] for sample in block}) == len(block)
                k, m = linear_gram(a[block]), linear_gram(b[block])
                found.append([len(block) * hsic(*pair) for pair in ((k, m), (k, k), (m, m))])
            weights.append(sum(map(len, blocks)))
            rows.append(np.sum(found, 0) / weights[-1])
    used = sum(weights)
    xy, xx, yy = np.average(rows, axis=0, weights=weights)
    assert result.matrix("a", "b").iloc[-1, -1] == pytest.approx(xy / np.sqrt(xx * yy), abs=1e-5)
    stderr = delta_stderr([np.array(rows)], weights)
    assert result.stderr("a", "b").iloc[-1, -1] == pytest.approx(stderr, rel=1e-3)
    assert (result.samples, result.blocks) == (used, len(rows))
    left_out = sum(map(len, groups)) - used
    assert [f"{left_out} of" in sentence for sentence in result.warnings] == [True] * bool(left_out)


@pytest.mark.parametrize("size", [None, 5])
def test_groups_of_one_change_nothing(size: int | None) -> None:
    """Neither scores nor error bars nor chance; None and NaN are such groups."""
    x = torch.randn(6 * 20, 8)
    models = {"a": _net(), "b": [_net(), _net()]}
    plain = run(models, list(x.split(20)), hsic_batch_size=size)
    for groups in (
        torch.arange(120),
        pd.Series([pd.NA] * 120),
        [None, math.nan] * 60,
        list(map(str, x)),
    ):
        found = run(models, list(x.split(20)), hsic_batch_size=size, groups=groups)
        assert found.blocks == plain.blocks
        for name in ARRAYS:
            for one, other in ((found.sums, plain.sums), (found.pooled, plain.pooled)):
                ours, theirs = getattr(one, name), getattr(other, name)
                # A fourth cumulant is what is left of the variance's square.
                scale = other.chance2.max() ** 2 if name == "chance4" else theirs.max()
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-9 * scale)


def test_copies_of_a_sample_add_no_certainty() -> None:
    """Eight equal frames a clip are worth one: the error bar and the null are those of one."""
    x = torch.randn(100, 8)
    models = {"a": _net(), "b": _net()}
    once = run(models, list(x.split(10)))
    copies = x.repeat_interleave(8, 0)
    often = run(models, list(copies.split(80)), groups=torch.arange(100).repeat_interleave(8))
    for how in ("matrix", "stderr", "null"):
        one, other = (getattr(result, how)("a", "b") for result in (once, often))
        np.testing.assert_allclose(one, other, rtol=1e-4)
    assert not often.warnings


def test_a_function_of_the_batch_and_columns_of_one() -> None:
    x, groups = _clips(40, 4)
    numbers = torch.tensor([int(name.split()[1]) for name in groups])
    models = {"a": _net(), "b": _net()}
    listed = run(models, list(x.split(32)), groups=groups)
    loader = DataLoader(TensorDataset(x, numbers[:, None]), 32)
    by_batch = run(models, loader, groups=lambda batch: batch[1])
    np.testing.assert_array_equal(listed.matrix("a", "b"), by_batch.matrix("a", "b"))
    np.testing.assert_array_equal(listed.stderr("a", "b"), by_batch.stderr("a", "b"))
    assert listed.provenance["groups"]
    assert not by_batch.warnings


def test_particles_mapped_together_give_the_same() -> None:
    x, groups = _clips(60, 3)
    models = {"a": [_net() for _ in range(3)]}
    one, other = (
        run(models, list(x.split(30)), groups=groups, vmap=vmap) for vmap in (False, True)
    )
    np.testing.assert_allclose(one.matrix("a", "a"), other.matrix("a", "a"), atol=1e-5)
    np.testing.assert_allclose(one.stderr("a", "a"), other.stderr("a", "a"), rtol=1e-3)


@pytest.mark.parametrize("batch", [30, 20])
def test_groups_in_two_batches_are_told_and_have_no_error_bars(batch: int, tmp_path: Path) -> None:
    x, groups = _clips(30, 8)
    models = {"a": _net(), "b": [_net(), _net()]}
    crossed = run(models, list(x.split(4 * batch + 4)), groups=groups, hsic_batch_size=4)
    crossed.save(tmp_path / "crossed.safetensors")
    whole = run(models, list(x.split(120)), groups=[f"other {name}" for name in groups])
    for result in (crossed, load(tmp_path / "crossed.safetensors"), whole.merge(crossed)):
        assert result.matrix("a", "b").notna().all(axis=None)
        assert result.stderr("a", "b").isna().all(axis=None)
        assert result.stderr("b", "b").isna().all(axis=None)
        assert result.interval("a", "b")[0].isna().all(axis=None)
        assert not result.above_chance("a", "b").any(axis=None)
        assert any("several batches" in sentence for sentence in result.warnings)
    assert whole.above_chance("a", "b").any(axis=None)


def test_a_run_whose_groups_cross_does_not_stop_early() -> None:
    x, groups = _clips(100, 8)
    result = run({"a": _net()}, list(x.split(60)), groups=groups, stop_at_stderr=0.5)
    assert result.batches == 14


@pytest.mark.parametrize(
    ("groups", "error", "words"),
    [
        (torch.arange(64) // 32, CompareError, "batch 1 has samples of 2 groups only.*larger"),
        ([7] * 64, CompareError, "samples of 1 group only"),
        (lambda batch: batch[:3, 0], CompareError, "gave 3 values for the 64 samples of batch 1"),
        (torch.arange(63), ValueError, "63 values for 64 samples"),
        ([[1, 2]] * 64, TypeError, r"gave \[1, 2\] for a sample"),
        (lambda batch: batch, CompareError, r"groups= failed at batch 1: TypeError: groups= gave"),
        (lambda batch: batch["clip"], CompareError, "groups= failed at batch 1: "),
        (lambda batch: None, CompareError, "groups= failed at batch 1: TypeError"),
        ("clip", TypeError, "groups='clip' must be one value a sample"),
        (3, TypeError, "or a function of the batch"),
        ({"a": 1}, TypeError, "or a function of the batch"),
    ],
)
def test_what_cannot_work_is_refused(groups: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        run({"a": _net()}, [torch.randn(64, 8)], groups=groups)


def test_a_later_batch_of_few_groups_is_refused_and_a_short_last_one_left_out() -> None:
    x, groups = torch.randn(80, 8), [*range(32), *[100] * 32, *[200] * 16]
    with pytest.raises(CompareError, match="batch 2 has samples of 1 group only") as caught:
        run({"a": _net()}, list(x.split(32)), groups=groups)
    assert caught.value.result.samples == 32
    result = run({"a": _net()}, [x[:32], x[64:]], groups=groups[:32] + groups[64:])
    assert result.samples == 32
    assert any("16 of 48 samples were left out" in sentence for sentence in result.warnings)


def test_too_few_values_for_a_loader_without_a_length() -> None:
    with pytest.raises(CompareError, match="groups= has 50 values"):
        run({"a": _net()}, (torch.randn(32, 8) for _ in range(2)), groups=list(range(50)))


def test_values_in_order_do_not_go_with_a_loader_that_shuffles() -> None:
    loader = DataLoader(torch.randn(64, 8), 32, shuffle=True)
    with pytest.raises(ValueError, match="the loader shuffles: give a function of the batch"):
        run({"a": _net()}, loader, groups=list(range(64)))


def test_results_with_and_without_groups_do_not_merge() -> None:
    x = torch.randn(64, 8)
    one, other = (run({"a": _net()}, [x], groups=g) for g in (None, list(range(64))))
    with pytest.raises(ValueError, match="merge needs the same groups"):
        one.merge(other)


def test_classes_of_clips_do_not_look_sorted() -> None:
    x, groups = _clips(80, 8)
    labels = torch.arange(80).remainder(10).repeat_interleave(8)
    batches = list(zip(x.split(160), labels.split(160), strict=True))
    assert any("sorted by class" in sentence for sentence in run({"a": _net()}, batches).warnings)
    assert not run({"a": _net()}, batches, groups=groups).warnings


@pytest.mark.parametrize("size", [None, 4, 6, 100])
@pytest.mark.parametrize("seed", range(5))
def test_every_block_has_each_group_once_and_one_cluster(seed: int, size: int | None) -> None:
    rng = np.random.default_rng(seed)
    values = [None if v > 25 else int(v) for v in rng.integers(0, 30, rng.integers(20, 200))]
    made = arrange(values, size, 4)
    assert max(Counter(made.order).values()) == 1
    assert len(made.order) + made.left_out == len(values)
    blocks = [made.order[i:j] for s in made.segments for i, j in s.bounds()]
    assert sum(map(len, blocks)) == len(made.order)
    cluster_of: dict[Any, int] = {}
    for cluster, block in zip(made.clusters, blocks, strict=True):
        named = [values[sample] for sample in block if values[sample] is not None]
        assert len(set(named)) == len(named)
        assert all(cluster_of.setdefault(name, cluster) == cluster for name in named)
        assert 4 <= len(block) <= max(size or len(values), 7)


def test_independent_layers_of_clips_are_seldom_above_chance() -> None:
    """At alpha 0.01; without groups= always. Of 60 runs more than 5 come once in 30,000 times."""

    class Half(nn.Module):
        def __init__(self, start: int) -> None:
            super().__init__()
            self.start, self.out = start, nn.Identity()

        def forward(self, x: Tensor) -> Any:
            return self.out(x[:, self.start : self.start + 4])

    models = {"a": Half(0), "b": Half(4)}
    found = {True: 0, False: 0}
    for _ in range(60):
        x, clips = _clips(64, 8)
        for groups in found:
            result = run(
                models, list(x.split(128)), groups=clips if groups else None, hsic_batch_size=16
            )
            found[groups] += bool(result.above_chance("a", "b").any(axis=None))
            assert not groups or not result.warnings
    assert found[True] <= 5
    assert found[False] > 40
