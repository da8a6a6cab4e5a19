"""What only accelerators do, with the CPU in their place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo
from checks import largest_error, run
from oracles import reference_compare
from torch.utils._python_dispatch import TorchDispatchMode

from cka_widget.engine.grams import accelerator, gram

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("chunks", [1, 2, 7, 33, 500])
@pytest.mark.parametrize("d", [1, 63, 64, 1000, 4096])
def test_a_sum_over_chunks_is_the_product(d: int, chunks: int) -> None:
    wide = torch.randn(12, 2 * d)
    for x in (wide[:, :d].contiguous(), wide[:, d:]):  # rows further apart than they are long
        exact = x.double() @ x.double().T
        out = torch.full((12, 12), torch.nan)
        accelerator._split_product_(out, x, chunks, 0.0, 1.0)
        torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-4)
        accelerator._split_product_(out, x, chunks, 1.0, 0.5)
        torch.testing.assert_close(out.double(), 1.5 * exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("alpha", [1.0, 0.25])
@pytest.mark.parametrize("blocks", [1, 3])
def test_tall_products_are_split(
    monkeypatch: pytest.MonkeyPatch, blocks: int, alpha: float
) -> None:
    x, held = torch.randn(blocks, 8, 65536), torch.randn(blocks, 8, 8)
    exact = alpha * torch.bmm(x.double(), x.double().mT)
    split = []
    monkeypatch.setattr(accelerator, "accelerated", lambda device: True)
    whole = accelerator._split_product_
    monkeypatch.setattr(
        accelerator, "_split_product_", lambda *args: split.append(args[2]) or whole(*args)
    )
    fresh = torch.full_like(held, torch.nan)  # beta 0 ignores it
    accelerator.product_(fresh, x, alpha=alpha)
    torch.testing.assert_close(fresh.double(), exact, rtol=1e-5, atol=1e-2)
    added = held.clone()
    accelerator.product_(added, x, beta=1.0, alpha=alpha)
    torch.testing.assert_close(added.double(), held + exact, rtol=1e-5, atol=1e-2)
    assert split == [16] * 2 * blocks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("blocks", [1, 2, 9])
def test_half_precision_is_summed_in_float32(
    monkeypatch: pytest.MonkeyPatch, queued: bool, blocks: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(accelerator, "accelerated", lambda device: queued)
    x = torch.randn(blocks, 8, 5000).to(dtype)
    out = torch.empty(blocks, 8, 8)
    exact = torch.bmm(x.double(), x.double().mT)
    for alpha, beta, expected in ((1.0, 0.0, exact), (0.5, 1.0, 1.5 * exact)):
        accelerator.product_(out, x, alpha=alpha, beta=beta)
        torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-3)


class Launches(TorchDispatchMode):
    """Names of the operations that are kernels: what is a view of its argument is none."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not any(a.alias_info for a in func._schema.arguments) or func._schema.is_mutable:
            self.found.append(str(func).removeprefix("aten."))
        return func(*args, **(kwargs or {}))


def sums_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA, where torch has products of half precision in float32."""
    if not hasattr(torch.ops.aten.bmm, "dtype"):
        pytest.skip("this torch multiplies half precision in half precision alone")
    monkeypatch.setattr(accelerator, "_sums_in_float32", lambda device: True)


@pytest.mark.parametrize(
    ("shape", "dtype", "launches"),
    [
        ((1, 64, 65536), torch.float32, ["bmm.default", "sum.IntList_out"]),
        ((1, 64, 65536), torch.bfloat16, ["bmm.dtype", "sum.IntList_out"]),
        ((3, 64, 65536), torch.float16, ["bmm.dtype", "sum.IntList_out"] * 3),
        ((16, 16, 4096), torch.float32, ["baddbmm.out"]),
    ],
)
def test_a_gram_is_one_launch_or_two(
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    launches: list[str],
) -> None:
    """Counted on tensors that have no memory, and are on no CPU."""
    monkeypatch.setattr(accelerator, "_processors", lambda device: 132)
    if dtype is not torch.float32:
        sums_in_float32(monkeypatch)
    x = torch.empty(shape, device="meta", dtype=dtype)
    out = torch.empty(shape[0], shape[1], shape[1], device="meta")
    with Launches() as counted:
        gram.linear_gram_([(slice(0, shape[0] * shape[1]), out)], x)
    assert counted.found == launches


@pytest.mark.parametrize("rounded", [False, True])
def test_a_layer_is_centred_whole(monkeypatch: pytest.MonkeyPatch, rounded: bool) -> None:
    """64 samples of 64 x 112 x 112 features, 205 MB, which were four slabs of 64 MB."""
    monkeypatch.setattr(accelerator, "_processors", lambda device: 132)
    if rounded:
        sums_in_float32(monkeypatch)
    x = torch.empty(64, 802816, device="meta")
    out = torch.empty(1, 64, 64, device="meta")
    with Launches() as counted:
        gram.centred_gram_([(slice(0, 64), out)], x, rounded=rounded)
    assert sum("bmm" in name for name in counted.found) == 1
    kernels = [name for name in counted.found if not name.startswith(("empty", "promote_types"))]
    assert len(kernels) == 13, kernels


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("precision", accelerator.PRECISIONS)
def test_half_precision_is_multiplied_as_it_is(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, precision: str
) -> None:
    """Where it needs no centring; also by "medium", which then rounds nothing."""
    monkeypatch.setattr(accelerator, "accelerated", lambda device: True)
    seen, centred = [], []
    whole, other = gram.linear_gram_, gram.centred_gram_
    monkeypatch.setattr(
        gram, "linear_gram_", lambda slots, x, *a: seen.append(x.dtype) or whole(slots, x, *a)
    )
    monkeypatch.setattr(
        gram, "centred_gram_", lambda *a, **k: centred.append(a[1].dtype) or other(*a, **k)
    )
    models = {"a": zoo.mlp(0).to(dtype), "b": zoo.seeded(zoo.Shifted, 300.0).to(dtype)}
    batches = [x.to(dtype) for x in zoo.vectors(128, batch=32)]
    result = run(models, batches, precision=precision)
    assert set(seen) == {dtype}
    rows = sum(len(result.layers(name)) for name in models)
    mean = 1  # only the rows of features with a mean are centred in later batches
    assert len(centred) == rows + mean * (len(batches) - 1)
    tolerance = 3e-3 if precision == "medium" else 1e-4
    assert largest_error(result, reference_compare(models, batches)) < tolerance


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((1, 64, 65536), 16),  # one tile: as many chunks as give each 4096 features
        ((1, 64, 802816), 128),  # of 132 processors, and no remainder
        ((1, 256, 802816), 32),  # four tiles
        ((1, 64, 64 * 1009), 15),  # a prime number of vectors: with a remainder
        ((4, 64, 65536), 16),
        ((16, 64, 65536), 1),  # sixteen times two launches would take longer than sixteen tiles
        ((4, 64, 4096), 1),
        ((1, 256, 4096), 1),
        ((1, 64, 1500), 1),
        ((200, 64, 65536), 1),  # enough tiles
        ((1, 4096, 65536), 1),
    ],
)
def test_chunks_fill_the_processors(shape: tuple[int, int, int], chunks: int) -> None:
    assert accelerator.chunks_for(*shape, processors=132) == chunks


def test_the_precision_of_a_run() -> None:
    """None follows torch on CUDA only: on the CPU float32 costs what it costs."""
    before = torch.get_float32_matmul_precision()
    try:
        for name in accelerator.PRECISIONS:
            torch.set_float32_matmul_precision(name)
            assert accelerator.resolve(None, CUDA) == name
            assert accelerator.resolve(None, CPU) == "highest"
            assert accelerator.resolve("high", CPU) == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    with pytest.raises(ValueError, match="precision='bf16' is not known: highest, high, medium"):
        accelerator.resolve("bf16", CPU)


needs_backends = pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="before torch 2.9"
)


@needs_backends
def test_the_precision_set_by_backend() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "tf32"  # torch's own getter raises now
        assert accelerator.resolve(None, CUDA) == "high"
    finally:
        matmul.fp32_precision = before


@needs_backends
@pytest.mark.parametrize("user", accelerator.PRECISIONS)
@pytest.mark.parametrize(
    ("device", "precision", "inside"),
    [
        (CUDA, "highest", ("none", "ieee")),
        (CUDA, "high", ("tf32",)),
        (CUDA, "medium", ("tf32",)),
        (CPU, "highest", ("none", "ieee")),
        (CPU, "medium", ("none", "ieee")),  # processors with AMX would round to bfloat16
    ],
)
def test_torch_is_set_for_the_product_and_restored(
    user: str, device: torch.device, precision: str, inside: tuple[str, ...]
) -> None:
    backend = (torch.backends.mkldnn if device is CPU else torch.backends.cuda).matmul
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(user)
        with accelerator.matmul(device, precision):
            assert backend.fp32_precision in inside
        assert torch.get_float32_matmul_precision() == user
    finally:
        torch.set_float32_matmul_precision(before)


@needs_backends
@pytest.mark.parametrize("device", [CUDA, CPU])
def test_what_torch_inherits_it_inherits_again(device: torch.device) -> None:
    """From the setting of all backends, which the user may change after the run."""
    backend = (torch.backends.mkldnn if device is CPU else torch.backends.cuda).matmul
    before, own = torch.backends.fp32_precision, backend.fp32_precision
    try:
        backend.fp32_precision, torch.backends.fp32_precision = "none", "tf32"
        with accelerator.matmul(device, "highest"):
            assert backend.fp32_precision == "ieee"
        assert backend.fp32_precision == "tf32"
        torch.backends.fp32_precision = "ieee"
        assert backend.fp32_precision == "ieee"
    finally:
        backend.fp32_precision, torch.backends.fp32_precision = own, before


def test_one_setting_for_all_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch had until 2.8."""
    monkeypatch.setattr(accelerator, "_backend", lambda kind: None)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with accelerator.matmul(CUDA, "highest"):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
        with accelerator.matmul(CUDA, "high"):
            assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
