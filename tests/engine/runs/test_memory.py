"""Work that does not fit the device's memory is cut, or moved there piece by piece."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import run
from torch import nn
from torch.func import stack_module_state
from torch.utils._python_dispatch import TorchDispatchMode

from cka_widget.engine.compare import compare, iter_compare
from cka_widget.engine.devices import memory_of
from cka_widget.engine.errors import CKAWarning, CompareError
from cka_widget.engine.grams import accelerator
from cka_widget.engine.grams import memory as memory_module
from cka_widget.engine.grams.memory import bytes_needed, gram_bytes, rows_that_fit
from cka_widget.engine.grams.stack import GramStack
from cka_widget.engine.models import placement
from cka_widget.engine.models.particles import StackedParticles


class Small(nn.Module):
    """Runs out of memory, after its first layer, on more than `limit` samples."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 6), nn.Linear(6, 4)
        self.limit = limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.second(x)


@pytest.mark.parametrize("first", [64, 16])
def test_batches_are_halved_until_they_fit(first: int) -> None:
    """The unbiased estimate over the same blocks stays the same; the result says what was done."""
    batches = [torch.randn(n, 8) for n in (first, 64, 64)]
    model, other = zoo.seeded(Small, 1000), zoo.mlp(1)
    whole = run({"a": model, "b": other}, batches, hsic_batch_size=16)
    model.limit = 20
    cut = run({"a": model, "b": other}, batches, hsic_batch_size=16)
    np.testing.assert_allclose(cut.matrix("a", "b"), whole.matrix("a", "b"), atol=1e-6)
    assert cut.layers("a") == whole.layers("a")
    assert (cut.samples, cut.batches) == (whole.samples, whole.batches)
    assert any("cut into at most 16 samples" in sentence for sentence in cut.warnings)
    assert not model.first._forward_hooks


def test_it_is_said_aloud() -> None:
    with pytest.warns(CKAWarning, match="did not fit the memory of cpu"):
        compare({"a": zoo.seeded(Small, 8)}, zoo.vectors(48), progress=False)


def test_what_never_fits_fails_with_the_layer_named() -> None:
    with pytest.raises(CompareError, match=r'model "a" failed.*OutOfMemoryError'):
        run({"a": zoo.seeded(Small, 3)}, zoo.vectors(48))


def test_particles_too_large_together_go_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cpu:0` is another name of the CPU: every move is made, and none costs a device."""
    moves: list[tuple[int, str]] = []

    class Moving(nn.Linear):
        def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
            moves.append((id(self), "moved"))
            return super()._apply(fn, recurse)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 3:
                moves.append((id(self), "ran"))
            return super().forward(x)

    particles = [zoo.seeded(Moving, 8, 4, seed=seed) for seed in range(3)]
    expected = run({"e": particles}, zoo.vectors(32, batch=16)).matrix("e", "e")
    moves.clear()
    monkeypatch.setattr(placement, "memory_of", lambda device: 0)
    found = run({"e": particles}, zoo.vectors(32, batch=16), device="cpu:0").matrix("e", "e")
    np.testing.assert_allclose(found, expected, atol=1e-7)
    visit = [what for _, what in moves[:9]]
    assert visit == ["moved", "ran", "moved"] * 3
    assert [owner for owner, _ in moves[:9:3]] == [id(p) for p in particles]


@pytest.mark.parametrize("free", [1e9, 0])
def test_stacked_particles_move_once_where_they_fit(
    monkeypatch: pytest.MonkeyPatch, free: float
) -> None:
    used: list[int] = []

    class Using(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 3:
                used.append(self.weight.data_ptr())
            return super().forward(x)

    params, buffers = stack_module_state([zoo.seeded(Using, 8, 4, seed=k) for k in range(3)])
    stacked = {"e": StackedParticles(Using(8, 4), params, buffers)}
    expected = run(stacked, zoo.vectors(48)).matrix("e", "e")
    where_they_were, used[:] = used[:3], []
    monkeypatch.setattr(placement, "memory_of", lambda device: free)
    found = run(stacked, zoo.vectors(48), device="cpu:0").matrix("e", "e")
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert not set(used) & set(where_they_were)
    assert (used[:3] == used[3:6] == used[6:]) == (free > 0)


def test_rows_that_cannot_fit_are_told_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = zoo.Counting(zoo.mlp())
    monkeypatch.setattr(memory_module, "memory_of", lambda device: 1e5)
    with pytest.raises(CompareError, match=r"rows .* at batches of 64 .* choose at most \d+ rows"):
        run({"a": model}, zoo.vectors(64, batch=64))
    assert model.sizes == []
    run({"a": model}, zoo.vectors(64, batch=64), hsic_batch_size=8)


@pytest.mark.parametrize(("n", "block"), [(64, None), (4096, 64), (66, 16)])
def test_the_largest_number_of_rows(n: int, block: int | None) -> None:
    memory = 24e9
    rows = rows_that_fit(memory, n, block)
    assert bytes_needed(rows, n, block) <= memory < bytes_needed(rows + 1, n, block)


class Held(TorchDispatchMode):
    """The most bytes of tensors made within that were alive at once; small ones left out."""

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[int, tuple[Any, int]] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, torch.Tensor) and tensor.numel() > 100:
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: Any) -> None:
        key = storage._cdata
        if key not in self._alive:
            reference = weakref.ref(storage, lambda _: self._free(key))
            self._alive[key] = reference, storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)

    def _free(self, key: int) -> None:
        self.now -= self._alive.pop(key)[1]


def test_a_thousand_layers_a_hundred_particles_and_large_batches() -> None:
    layers = [nn.Linear(8, 8) for _ in range(1000)]
    deep = nn.Sequential(*(m for layer in layers for m in (layer, nn.LayerNorm(8))))
    found = run({"a": deep}, zoo.vectors(4096, batch=4096), layers="*0", hsic_batch_size=64)
    assert found.blocks == 64
    many = run({"e": [nn.Linear(8, 4) for _ in range(100)]}, zoo.vectors(64, batch=32))
    assert many.particles("e", "e", row="(output)", col="(output)").shape == (100, 100)


def held(rows: int, n: int, block: int) -> int:
    """Peak of a run over a chain of so many layers."""
    chain = nn.Sequential(*(nn.Linear(4, 4) for _ in range(rows)))
    batches = zoo.vectors(2 * n, d=4, batch=n)
    with Held() as memory:
        assert len(run({"a": chain}, batches, hsic_batch_size=block).layers("a")) == rows
    return memory.peak


def test_memory_of_several_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stacks of Grams, however many measures there are."""
    monkeypatch.setattr(memory_module, "vectors_together", lambda: 1 << 17)
    chain = nn.Sequential(*(nn.Linear(4, 4) for _ in range(60)))
    batches = zoo.vectors(512, d=4, batch=256)
    every = ["rsa", "distance_correlation", "mutual_knn", "cka"]
    told = bytes_needed(60, 256, None, measures=4, stacks=2)
    for measures in (every[:1], every):
        with Held() as memory:
            run({"a": chain}, batches, hsic_batch_size=None, measures=measures)
        assert 0.8 * 2 * 60 * gram_bytes(256, None) < memory.peak < told


def test_memory_is_that_of_rows_and_the_hsic_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """O(rows x HSIC batch^2 + rows^2), whatever the batch: what is told before the run."""
    monkeypatch.setattr(memory_module, "_GRAMS", 1 << 18)
    sizes = [(100, 128, 32), (100, 1024, 32), (200, 128, 32), (100, 256, 64)]
    told = [bytes_needed(*size) for size in sizes]
    base, batch, rows, block = (held(*size) for size in sizes)
    inputs = 2 * 4 * 4 * 1024
    assert 100 * gram_bytes(1024, 32) > 6 * batch, "the Grams of a batch were all there at once"
    assert told[0] / 2 < base < told[0] == told[1]
    assert batch < told[1] + inputs
    assert told[2] / 2 < rows < told[2]
    assert told[3] / 2 < block < told[3]
    assert block - base > 4 * 100 * (64**2 - 32**2)


@pytest.mark.parametrize("at_once", [16, 32])
def test_large_batches_go_through_in_parts(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """The blocks stay the same, and so do the scores; the loader's batches are counted."""
    models = {"a": zoo.Counting(zoo.mlp(0)), "b": zoo.mlp(1)}
    batches = zoo.vectors(192, batch=96)
    whole = run(models, batches, hsic_batch_size=16)
    assert models["a"].sizes == [96, 96]
    rows = len(list(models["a"].modules())) + len(list(models["b"].modules()))
    monkeypatch.setattr(memory_module, "_GRAMS", 4 * rows * 16 * at_once)
    models["a"].sizes.clear()
    parts = run(models, batches, hsic_batch_size=16)
    assert models["a"].sizes == [at_once] * (192 // at_once)
    np.testing.assert_allclose(parts.matrix("a", "b"), whole.matrix("a", "b"), atol=1e-6)
    np.testing.assert_allclose(parts.stderr("a", "b"), whole.stderr("a", "b"), atol=1e-6)
    assert (parts.samples, parts.batches, parts.blocks) == (192, 2, 12)
    assert not parts.warnings


def test_what_torch_keeps_and_does_not_use_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("mem_get_info", (100, 1000)),
        ("memory_reserved", 500),
        ("memory_allocated", 200),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert memory_of(torch.device("cuda")) == 400


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be reported later",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
@pytest.mark.parametrize("where", ["forward", "reduce"])
def test_memory_that_ran_out_in_a_library_is_cut_too(said: str, where: str) -> None:
    def fail(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 20:
            raise RuntimeError(said)
        return x

    batches = zoo.vectors(128, batch=64)
    options: dict[str, Any] = {"forward": lambda model, x: model(fail(x))}
    if where == "reduce":
        options = {"reduce": lambda x: fail(x)}
    found = run({"a": zoo.mlp()}, batches, hsic_batch_size=16, **options)
    whole = run({"a": zoo.mlp()}, batches, hsic_batch_size=16)
    np.testing.assert_allclose(found.matrix("a", "a"), whole.matrix("a", "a"), atol=1e-6)
    assert any("cut into at most 16 samples" in sentence for sentence in found.warnings)


def test_other_errors_of_a_library_are_no_lack_of_memory() -> None:
    def fail(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 20:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")
        out: torch.Tensor = model(x)
        return out

    with pytest.raises(CompareError, match="CUDNN_STATUS_NOT_SUPPORTED"):
        run({"a": zoo.mlp()}, zoo.vectors(64, batch=64), hsic_batch_size=16, forward=fail)


@pytest.mark.parametrize(
    "options", [{}, {"kernel": "rbf"}, {"vmap": True}, {"hsic_batch_size": 8}, {"reduce": "mean"}]
)
@pytest.mark.parametrize("queued", [False, True])
def test_a_run_is_freed_without_the_collector(
    queued: bool, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its Grams and sums would stay on a GPU until Python happens to look for cycles."""
    monkeypatch.setattr(accelerator, "accelerated", lambda device: queued)
    if "vmap" in options and not hasattr(torch.ops.aten.bmm, "dtype"):  # came with 2.8
        pytest.skip("older torch itself keeps what torch.vmap has seen in a cycle")
    made: list[weakref.ref[Any]] = []
    init = GramStack.__init__

    def noted(self: GramStack, *args: Any, **how: Any) -> None:
        init(self, *args, **how)
        made.append(weakref.ref(self))

    monkeypatch.setattr(GramStack, "__init__", noted)
    models = {"a": zoo.mlp(), "b": [zoo.mlp(1), zoo.mlp(2)]}
    gc.collect()
    gc.disable()
    try:
        run(models, zoo.vectors(64), **options)
        assert [stack() for stack in made] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize("queued", [False, True])
def test_no_batch_leaves_anything_behind(queued: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the end of the loader, which on an accelerator comes under the last batch."""
    monkeypatch.setattr(accelerator, "accelerated", lambda device: queued)
    models = {"a": zoo.mlp(0, depth=6), "b": zoo.mlp(1, depth=6)}
    steps, found = iter_compare(models, zoo.vectors(128)), []
    with Held() as memory:
        for _ in steps:
            found.append(memory.now)
    assert max(found[4:]) <= max(found[2:4])
