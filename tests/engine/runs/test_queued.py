"""An accelerator's host waits at most once a batch, and finds what the CPU finds.

The CPU stands in for it: whatever would make the host wait for queued work is counted.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import largest_error, run
from oracles import reference_compare
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cka_widget.engine.compare import iter_compare
from cka_widget.engine.grams import accelerator, stack
from cka_widget.engine.grams.forming import Needs
from cka_widget.engine.grams.stack import GramStack
from cka_widget.engine.measures.cka import CKA
from cka_widget.engine.outputs.probed import Presumed, Probe
from cka_widget.engine.summing.accumulator import Accumulator

# Reading numbers, and tensors made of Python's numbers, whose copy to the device blocks.
WAITING = {
    *("item", "tolist", "numpy", "cpu", "nonzero", "masked_select", "unique", "tensor"),
    *("as_tensor", "__float__", "__int__", "__bool__", "__index__", "__contains__", "equal"),
}


class Waits(TorchFunctionMode):
    """Names of the calls, while entered, that would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(function, "__name__", "")
        if name in WAITING:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def _queued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "accelerated", lambda device: True)


def waits(models: dict[str, Any], batches: list[Any], **options: Any) -> list[list[str]]:
    """What waited in each batch after the first."""
    steps = iter_compare(models, batches, **options)
    next(steps)
    found = []
    for _ in batches[1:]:
        with Waits() as batch:
            next(steps)
        found.append(batch.found)
    return found


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "two": ({"a": zoo.mlp(0), "b": zoo.mlp(1)}, {}),
    "blocks": ({"a": zoo.mlp(0), "b": zoo.mlp(1)}, {"hsic_batch_size": 8}),
    "ensemble": ({"e": [zoo.mlp(0), zoo.mlp(1)], "b": zoo.mlp(2)}, {}),
    "dead": ({"a": zoo.seeded(zoo.Dead), "b": zoo.mlp(0)}, {}),
    "mean": ({"a": zoo.seeded(zoo.Shifted, 1e4), "b": zoo.mlp(0)}, {}),
    "rbf": ({"a": zoo.mlp(0), "b": zoo.mlp(1)}, {"kernel": "rbf"}),
    "TF32": ({"a": zoo.mlp(0), "b": zoo.mlp(1)}, {"precision": "high"}),
    "vmap": ({"e": [zoo.mlp(0), zoo.mlp(1)], "b": zoo.mlp(2)}, {"vmap": True}),
    "biased": ({"a": zoo.mlp(0), "b": zoo.mlp(1)}, {"unbiased": False}),
}


def test_waits_are_seen() -> None:
    x = torch.ones(2)
    with Waits() as found:
        assert [float(x[0]), bool(x[1] > 0), x.tolist(), len(x.numpy())]
        torch.tensor([1.0])
    assert found.found == ["__float__", "__bool__", "tolist", "numpy", "tensor"]


@pytest.mark.usefixtures("_queued")
@pytest.mark.parametrize("case", CASES)
def test_one_wait_a_batch(case: str) -> None:
    models, options = CASES[case]
    found = waits(models, zoo.vectors(128, batch=32), **options)
    assert len(found) == 3
    assert all(batch in ([], ["tolist"]) for batch in found), found


@pytest.mark.usefixtures("_queued")
def test_one_wait_a_batch_of_large_blocks() -> None:
    """Of which the null looks at some samples."""
    models, options = CASES["two"]
    assert waits(models, zoo.vectors(1200, batch=300), **options) == [["tolist"]] * 3


@pytest.mark.usefixtures("_queued")
@pytest.mark.parametrize("case", CASES)
def test_the_first_batch_is_read_in_one_transfer(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it shows of all rows; then, as in every batch, what its products show.

    The short passes on few samples, once a run, read on their own.
    """
    models, options = CASES[case]
    for kind in (Probe, Presumed):
        monkeypatch.setattr(kind, "check", lambda *_: None)
    with Waits() as found:
        next(iter_compare(models, zoo.vectors(32, batch=32), **options))
    assert found.found.count("tolist") <= 2
    assert not {"item", "__float__", "__int__", "__bool__"} & set(found.found), found.found


@pytest.mark.usefixtures("_queued")
def test_no_wait_where_all_features_are_centred() -> None:
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    assert waits(models, zoo.vectors(128, batch=32), precision="medium") == [[]] * 3


class Transfers(TorchDispatchMode):
    """Operations that take memory of the host and of torch's "meta" device, which is a GPU here."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, made))
        if len({x.device for x in leaves if isinstance(x, torch.Tensor)}) > 1:
            self.found.append(str(func))
        return made


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize(("n", "block"), [(64, None), (64, 16), (300, None)])
@pytest.mark.parametrize("precision", accelerator.PRECISIONS)
def test_grams_and_sums_stay_where_they_are(
    precision: str, n: int, block: int | None, unbiased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of the host among theirs would be copied, which no function's name tells."""
    reads: list[int] = []
    monkeypatch.setattr(torch.Tensor, "tolist", lambda x: reads.append(1) or [0.0] * len(x))
    meta = torch.device("meta")
    held = GramStack(Needs(), block, meta, precision=precision)
    sums = Accumulator([CKA(unbiased=unbiased)], [0, 0, 1], [0, 1, -1], 2, torch.device("cpu"))
    (one,) = sums.each
    for owner in (one, one.rows, one.pooled, one._pooling):
        for name, value in vars(owner).items():
            if isinstance(value, torch.Tensor):
                setattr(owner, name, value.to(meta))
    one._device, one._known = meta, ([0] * 3, [0.0] * 3)
    for _ in range(3):
        held.add_row()
    for row in held.formed.rows:
        row.look, row.centre_features = False, precision == "medium"
    for batch in range(2):
        held.begin(n)
        with Transfers() as transfers:
            for row in range(3):
                held.put(row, torch.empty(n, 4096, device=meta))
            sums.update(held, lambda again: None)
        assert not batch or not transfers.found  # tables of numbers are made once
        assert len(reads) == (batch + 1) * (precision != "medium")


def test_the_cpu_reads_between_its_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """There it costs nothing and saves work; so the counts above are not of what never was."""
    monkeypatch.setattr(stack, "_PAIRS_TOGETHER", 1)
    models, options = CASES["blocks"]
    batches = zoo.vectors(64, batch=32)
    assert waits(models, batches, **options) == [["tolist"] * 4]
    monkeypatch.setattr(accelerator, "accelerated", lambda device: True)
    assert waits(models, batches, **options) == [["tolist"]]


@pytest.mark.usefixtures("_queued")
@pytest.mark.parametrize("case", [case for case in CASES if case not in ("rbf", "biased")])
def test_values(case: str) -> None:
    models, options = CASES[case]
    batches = zoo.vectors(128, batch=32)
    block = options.get("hsic_batch_size")
    result = run(models, batches, **options)
    reference = reference_compare(models, batches)
    assert largest_error(result, reference, block=block) < 1e-4


@pytest.mark.usefixtures("_queued")
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_a_layer_that_wakes_late(scale: float) -> None:
    """Its scale is not known when its first samples come: products must not overflow."""
    a = nn.Sequential(nn.Linear(8, 12, bias=False), nn.ReLU(), nn.Linear(12, 5))
    models = {"a": a, "b": zoo.mlp(0)}
    batches = [torch.zeros(32, 8), *(x * scale for x in zoo.vectors(96, batch=32))]
    assert largest_error(run(models, batches), reference_compare(models, batches)) < 1e-4


@pytest.mark.usefixtures("_queued")
@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("jump", [1e4, 1e5, 1e6])
def test_a_mean_that_jumps_is_run_again(jump: float, unbiased: bool) -> None:
    """As on the CPU; only the decision comes at the batch's end."""
    batches = zoo.vectors(128, batch=32)
    batches[2] = batches[2] + jump
    models = {"a": zoo.Counting(zoo.mlp(0)), "b": zoo.mlp(1)}
    result = run(models, batches, layers={"a": "inner.*", "b": None}, unbiased=unbiased)
    assert models["a"].sizes == [32] * 5
    reference = reference_compare(models, batches)
    assert largest_error(result, reference, unbiased=unbiased) < 1e-4


DEVICE = torch.device("cpu")


class TwoDevices(TorchFunctionMode):
    """Apple's devices: no float64 there, and nothing that mixes them with the host.

    "cpu" stands for the device, "cpu:0" for the host; who lives on the host carries a mark.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        made = function(*args, **kwargs)
        name = getattr(function, "__name__", "")
        devices = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.device)]
        if (name == "to" and devices) or not given:
            host = {not devices or devices[0].index == 0}
        else:  # numbers, tensors of no dimension, go with all
            host = {hasattr(x, "host") for x in given if x.dim()} or {hasattr(given[0], "host")}
        assert len(host) < 2, f"{name} mixes devices"
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and True in host:
                tensor.host = True
            elif isinstance(tensor, torch.Tensor) and tensor.dim():
                assert tensor.dtype is not torch.float64, f"{name} made float64 on the device"
        return made


@pytest.mark.parametrize("size", [32, 320])
@pytest.mark.parametrize("case", CASES)
def test_a_device_without_float64(monkeypatch: pytest.MonkeyPatch, case: str, size: int) -> None:
    models, options = CASES[case]
    batches = zoo.vectors(3 * size, batch=size)
    expected = run(models, batches, **options)
    monkeypatch.setattr(accelerator, "accelerated", lambda device: True)
    monkeypatch.setattr(accelerator, "sums_device", lambda device: torch.device("cpu", 0))
    with TwoDevices():
        found = run(models, batches, device="cpu", **options)
    for pair in itertools.product(models, repeat=2):
        np.testing.assert_allclose(found.matrix(*pair), expected.matrix(*pair), atol=1e-5)


def test_two_devices_are_told_apart() -> None:
    with TwoDevices():
        x = torch.ones(2, device=DEVICE).to(torch.device("cpu", 0)).double()
        with pytest.raises(AssertionError, match="mixes"):
            x + torch.ones(2, device=DEVICE)
        with pytest.raises(AssertionError, match="made float64"):
            torch.ones(2, device=DEVICE).double()
