"""What only accelerators do, with the CPU in their place."""

from __future__ import annotations

import pytest
import torch

from cka_widget.engine import accelerator

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("chunks", [1, 2, 7, 33, 500])
@pytest.mark.parametrize("d", [1, 63, 64, 1000, 4096])
def test_a_sum_over_chunks_is_the_product(d: int, chunks: int) -> None:
    wide = torch.randn(12, 2 * d)
    for x in (wide[:, :d].contiguous(), wide[:, d:]):  # rows further apart than they are long
        for y in (x, x[3:7]):
            found = accelerator.split_sum(x, y, chunks).double()
            torch.testing.assert_close(found, x.double() @ y.double().T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("alpha", [1.0, 0.25])
@pytest.mark.parametrize("blocks", [1, 3])
def test_tall_products_are_split(
    monkeypatch: pytest.MonkeyPatch, blocks: int, alpha: float
) -> None:
    x, held = torch.randn(blocks, 8, 9000), torch.randn(blocks, 8, 8)
    exact = alpha * torch.bmm(x.double(), x.double().mT)
    split = []
    monkeypatch.setattr(accelerator, "accelerated", lambda device: True)
    whole = accelerator.split_sum
    monkeypatch.setattr(
        accelerator, "split_sum", lambda a, b, chunks: split.append(chunks) or whole(a, b, chunks)
    )
    fresh = torch.full_like(held, torch.nan)  # beta 0 ignores it
    accelerator.product_(fresh, x, alpha=alpha)
    torch.testing.assert_close(fresh.double(), exact, rtol=1e-5, atol=1e-3)
    added = held.clone()
    accelerator.product_(added, x, beta=1.0, alpha=alpha)
    torch.testing.assert_close(added.double(), held + exact, rtol=1e-5, atol=1e-3)
    assert split == [8] * 2 * blocks


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("blocks", [1, 2, 9])
def test_bfloat16_is_summed_in_float32(
    monkeypatch: pytest.MonkeyPatch, queued: bool, blocks: int
) -> None:
    monkeypatch.setattr(accelerator, "accelerated", lambda device: queued)
    x = torch.randn(blocks, 8, 5000).bfloat16()
    out = torch.empty(blocks, 8, 8)
    accelerator.product_(out, x)
    exact = torch.bmm(x.double(), x.double().mT)
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((1, 64, 65536), 64),  # one tile: as many chunks as give each 1024 features
        ((1, 64, 802816), 132),
        ((1, 256, 802816), 33),  # four tiles
        ((16, 64, 65536), 64),
        ((4, 64, 4096), 1),  # four launches would take longer than four tiles at once
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
