"""On a real GPU: the values of the CPU, hardly a wait, and the device as it was found."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import largest_error, run, same
from oracles import reference_compare
from torch import Tensor, nn
from torch.func import stack_module_state
from torch.utils.data import DataLoader, TensorDataset

from cka_widget.engine.compare import iter_compare
from cka_widget.engine.cuda_graph import recordable
from cka_widget.engine.functional import MinibatchCKA
from cka_widget.engine.grams import accelerator
from cka_widget.engine.models.particles import StackedParticles

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda")
LARGEST = {"highest": 1e-4, "high": 1e-3, "medium": 5e-3}


def residual() -> dict[str, nn.Module]:
    return {"a": zoo.resnet18(0).eval(), "b": zoo.resnet34(1).eval()}


@pytest.fixture(autouse=True)
def _same_convolutions() -> Any:
    """The models themselves in float32: what is off is the comparison's."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.mark.parametrize("precision", accelerator.PRECISIONS)
@pytest.mark.parametrize("block", [None, 16])
def test_values(precision: str, block: int | None) -> None:
    batches = zoo.images(128, batch=64)
    found = run(residual(), batches, hsic_batch_size=block, precision=precision, device=GPU)
    reference = reference_compare(residual(), batches)
    assert largest_error(found, reference, block=block) < LARGEST[precision]
    assert found.provenance["device"].startswith("cuda")


@pytest.mark.parametrize("mean", [3.0, 100.0])
@pytest.mark.parametrize("precision", accelerator.PRECISIONS)
def test_features_with_a_mean(precision: str, mean: float) -> None:
    models = {str(k): zoo.seeded(zoo.Shifted, mean, seed=k) for k in range(2)}
    batches = zoo.vectors(128, batch=64)
    found = run(models, batches, precision=precision, device=GPU)
    assert largest_error(found, reference_compare(models, batches)) < LARGEST[precision]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_in_half_precision(dtype: torch.dtype) -> None:
    models = {name: model.to(dtype).to(GPU) for name, model in residual().items()}
    batches = [batch.to(dtype).to(GPU) for batch in zoo.images(64, batch=32)]
    reference = reference_compare(models, batches)
    assert largest_error(run(models, batches), reference) < 1e-4


@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_autocast_rounds_no_gram(mean: float) -> None:
    def forward(model: nn.Module, batch: Tensor) -> Any:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            return model(batch)

    models = {str(k): zoo.seeded(zoo.Shifted, mean, width=16384, seed=k).to(GPU) for k in range(2)}
    batches = [batch.to(GPU) for batch in zoo.vectors(128, batch=64)]
    reference = reference_compare(models, batches, call=forward)
    assert largest_error(run(models, batches, forward=forward), reference) < 1e-4


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("unbiased", [True, False])
def test_the_cpu_finds_the_same(kernel: str, unbiased: bool) -> None:
    models = {"e": [zoo.mlp(k) for k in range(3)], "b": zoo.mlp(3)}
    options: dict[str, Any] = {"kernel": kernel, "unbiased": unbiased, "hsic_batch_size": 16}
    here = run(models, zoo.vectors(192, batch=48), device="cpu", **options)
    there = run(models, zoo.vectors(192, batch=48), device=GPU, **options)
    for pair in ("e", "e"), ("e", "b"):
        np.testing.assert_allclose(there.matrix(*pair), here.matrix(*pair), atol=1e-5)
        np.testing.assert_allclose(there.stderr(*pair), here.stderr(*pair), atol=1e-5)


@pytest.mark.parametrize("d", [100, 65536, 802816])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tall_products(d: int, dtype: torch.dtype) -> None:
    x = torch.randn(2, 64, d, device=GPU).to(dtype)
    out = torch.empty(2, 64, 64, device=GPU)
    with accelerator.matmul(GPU, "highest"):
        accelerator.product_(out, x, alpha=1 / d)
    exact = torch.bmm(x.double(), x.double().mT) / d
    # Tensor cores cut digits off where they sum: of equal signs alone, which stand in the diagonal,
    # by which HSIC does not go. An H200 was off by 2.2e-5 there; test_precision.py sums alike.
    off = 3e-5 if dtype is torch.bfloat16 else 1e-5
    torch.testing.assert_close(out.double(), exact, rtol=off, atol=off)
    found, exact = (k - torch.diag_embed(k.diagonal(dim1=1, dim2=2)) for k in (out.double(), exact))
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("precision", "most"), [("highest", 1), ("high", 1), ("medium", 0)])
def test_the_host_waits_at_most_once_a_batch(precision: str, most: int) -> None:
    batches = [batch.to(GPU) for batch in zoo.images(160, batch=32)]
    models = {name: model.to(GPU) for name, model in residual().items()}
    steps = iter_compare(models, batches, precision=precision)
    next(steps)
    try:
        with warnings.catch_warnings():  # torch tells that the mode is a prototype
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode("warn")
        for _ in batches[1:]:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                next(steps)
            waits = [w for w in caught if "called a synchronizing" in str(w.message)]
            assert len(waits) <= most, [str(w.message) for w in waits]
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("pinned", [False, True])
def test_copies_made_ahead_are_whole(pinned: bool) -> None:
    """Large enough for a copy to be under way while the models run."""
    data = TensorDataset(torch.randn(512, 3, 64, 64), torch.arange(512) % 7)
    loader = DataLoader(data, batch_size=64, pin_memory=pinned)
    there = run(residual(), loader, device=GPU)
    placed = [(x.to(GPU), y.to(GPU)) for x, y in DataLoader(data, batch_size=64)]
    same = run(residual(), placed, device=GPU)
    np.testing.assert_allclose(there.matrix("a", "b"), same.matrix("a", "b"), atol=1e-5)


def test_a_loader_may_fill_pinned_memory_again() -> None:
    batches = zoo.images(512, size=64, batch=64)
    memory = torch.empty_like(batches[0]).pin_memory()

    def refilled() -> Any:
        for batch in batches:
            yield memory.copy_(batch)

    found = run(residual(), refilled(), device=GPU).matrix("a", "b")
    same = run(residual(), batches, device=GPU).matrix("a", "b")
    np.testing.assert_allclose(found, same, atol=1e-5)


def test_everything_is_as_it_was_found() -> None:
    models = residual()
    run(models, zoo.images())  # what CUDA keeps for itself
    torch.cuda.synchronize()
    before, precision = torch.cuda.memory_allocated(), torch.get_float32_matmul_precision()
    run(models, zoo.images(), device=GPU, precision="high")
    assert {p.device.type for m in models.values() for p in m.parameters()} == {"cpu"}
    assert torch.cuda.memory_allocated() == before
    assert torch.get_float32_matmul_precision() == precision


@pytest.mark.parametrize("vmap", [False, True])
def test_stacked_particles(vmap: bool) -> None:
    particles = [zoo.mlp(k) for k in range(3)]
    stacked = StackedParticles(zoo.mlp(9).to("meta"), *stack_module_state(particles))
    found = run({"e": stacked}, zoo.vectors(), device=GPU, vmap=vmap)
    reference = reference_compare({"e": particles}, zoo.vectors())
    assert largest_error(found, reference) < 1e-5


def test_features_at_hand() -> None:
    found = MinibatchCKA(device=GPU)
    expected = MinibatchCKA()
    for _ in range(4):
        x: Tensor = torch.randn(64, 40)
        features = {"x": x, "y": x[:, :20] + torch.randn(64, 20)}
        expected.update(features)
        found.update({name: value.to(GPU) for name, value in features.items()})
    np.testing.assert_allclose(found.compute(), expected.compute(), atol=1e-5)


def test_a_batch_that_does_not_fit_is_cut() -> None:
    class Greedy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 20:
                torch.empty(1 << 50, dtype=torch.uint8, device=x.device)
            return super().forward(x)

    found = run({"a": Greedy(8, 8)}, zoo.vectors(64, batch=64), device=GPU)
    assert any("cut into at most 16 samples" in sentence for sentence in found.warnings)
    assert found.samples == 64


@pytest.mark.parametrize("precision", accelerator.PRECISIONS)
def test_particles_as_one_call(precision: str) -> None:
    particles, batches = [zoo.resnet18(k).eval() for k in range(4)], zoo.images(128, batch=64)
    found = run({"e": particles}, batches, device=GPU, precision=precision, vmap=True)
    reference = reference_compare({"e": particles}, batches)
    assert largest_error(found, reference) < LARGEST[precision]


@pytest.mark.parametrize("precision", accelerator.PRECISIONS)
@pytest.mark.parametrize("vmap", [False, True])
def test_a_recorded_batch(precision: str, vmap: bool) -> None:
    """Of eight batches the models see five; the ninth is smaller."""
    counting = zoo.Counting(zoo.resnet18(9).eval())
    models = {"e": [zoo.resnet18(k).eval() for k in range(2)], "a": counting}
    batches = zoo.images(8 * 32 + 16, batch=32)
    options: dict[str, Any] = {"device": GPU, "precision": precision, "vmap": vmap}
    expected = run(models, batches, **options)
    counting.sizes.clear()
    found = run(models, batches, cuda_graph=True, **options)
    assert counting.sizes == [32] * 5 + [16]
    assert not any("CUDA graph" in sentence for sentence in found.warnings)
    # Layers near the bound of TF32 are centred by one run and not by the other; in float32 1.1e-5
    # was seen on an H200, whose convolutions need not go the same way in a recording.
    same(found, expected, {"highest": 2e-5, "high": 1e-4, "medium": 1e-3}[precision])


def unsearched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have neither the operations nor torch tell that a model reads numbers."""
    monkeypatch.setattr(recordable, "_reads", lambda func, args: False)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)


@pytest.mark.parametrize("searched", [False, True])
def test_a_model_that_cannot_be_recorded(searched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs as without, and the device's random numbers can be drawn afterwards."""
    if not searched:
        unsearched(monkeypatch)
    models, batches = {"a": zoo.seeded(zoo.DataDependent)}, zoo.vectors(192, batch=32)
    found = run(models, batches, device=GPU, cuda_graph=True)
    (sentence,) = (s for s in found.warnings if "CUDA graph" in s)
    assert ("an operation" if searched else "recording failed") in sentence
    same(found, run(models, batches, device=GPU), 1e-5)
    assert torch.nn.functional.dropout(torch.ones(1000, device=GPU)).sum() > 0
    dropout = nn.Dropout(0.5).to(GPU).train()
    assert 300 < (dropout(torch.ones(1000, device=GPU)) == 0).sum() < 700
    assert torch.cuda.current_stream() == torch.cuda.default_stream()


@pytest.mark.parametrize(
    "hidden",
    [
        lambda x: x * torch.tensor([2.0], device=x.device),
        lambda x: x[:, [1, 0]],
        lambda x: x * x.mean().cpu(),
        lambda x: torch.linalg.inv(x.mT @ x)[:1, :1] * x,
    ],
)
def test_waits_that_no_operation_shows(hidden: Any) -> None:
    models, batches = {"a": zoo.Returns(hidden).to(GPU)}, [x.to(GPU) for x in zoo.vectors(192)]
    found = run(models, batches, cuda_graph=True)
    (sentence,) = (s for s in found.warnings if "CUDA graph" in s)
    assert "recording failed" not in sentence
    same(found, run(models, batches), 1e-5)


def test_memory_is_not_lost_after_a_failed_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    unsearched(monkeypatch)
    models, batches = {"a": zoo.seeded(zoo.DataDependent)}, zoo.vectors(640)
    steps, held = iter_compare(models, batches, device=GPU, cuda_graph=True), []
    for step in steps:
        torch.cuda.synchronize()
        held.append(torch.cuda.memory_allocated())
        last = step
    assert any("recording failed" in sentence for sentence in last.result.warnings)
    assert max(held[10:]) <= max(held[5:10])


def test_the_memory_of_a_recording_is_given_back() -> None:
    models, batches = {"a": zoo.mlp().to(GPU)}, [x.to(GPU) for x in zoo.vectors(192, batch=32)]
    run(models, batches)  # what CUDA keeps for itself
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    run(models, batches, cuda_graph=True)
    assert torch.cuda.memory_allocated() == before


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_model_over_two_gpus() -> None:
    class Spread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(8, 16).to("cuda:0")
            self.second = nn.Linear(16, 4).to("cuda:1")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x.to("cuda:0")).to("cuda:1"))

    models, batches = {"a": zoo.seeded(Spread)}, zoo.vectors(96)
    found = run(models, batches, device="cuda:0")
    assert largest_error(found, reference_compare(models, batches)) < 1e-4
    assert models["a"].second.weight.device.index == 1
