"""X X' by each way that `symmetric` knows, and the choice between them."""

from functools import partial

import pytest
import torch

from cka_widget.engine import symmetric
from cka_widget.engine.gram import linear_gram_

SHARED = partial(symmetric.panels, width=32, chunks=4)  # where there are threads
WAYS = [*symmetric.ways(1, 64), SHARED]
NAMES = [f"{getattr(way, 'keywords', '') or way.__name__}" for way in WAYS]


@pytest.fixture(params=[True, False], ids=["oneDNN", "BLAS"])
def onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Panels by oneDNN, where this torch has it, and by BLAS, as where it has not."""
    if not request.param:
        monkeypatch.setattr(symmetric, "_times_transpose", lambda a, b: a @ b.mT)
    elif symmetric._onednn() is None:
        pytest.skip("this torch has no oneDNN")


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("way", WAYS, ids=NAMES)
@pytest.mark.parametrize("shape", [(1, 64, 300), (3, 17, 512), (2, 2, 5), (1, 5, 1)])
def test_every_way_agrees_with_float64(way: symmetric.Way, shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape)
    # Rows of a wider buffer, as in the stack; what stands there before must not shine through.
    out = torch.full((5, shape[0] * shape[1] ** 2), torch.nan)[3].view(*shape[:2], shape[1])
    way(out, x)
    truth = x.double() @ x.double().mT
    torch.testing.assert_close(out.double(), truth, rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_every_way_takes_features_that_are_not_contiguous(way: symmetric.Way) -> None:
    x = torch.randn(2, 16, 700)[:, :, 20:600]
    out = torch.empty(2, 16, 16)
    way(out, x)
    torch.testing.assert_close(out, x.contiguous() @ x.contiguous().mT, rtol=1e-5, atol=1e-4)


def test_a_timed_choice_is_made_once_for_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symmetric, "_fastest", {})
    x, out = torch.randn(1, 32, 8192), torch.empty(1, 32, 32)
    first = symmetric.quickest_way(out, x)
    monkeypatch.setattr(
        symmetric, "ways", lambda *_: []
    )  # a second trial would find nothing to choose
    assert symmetric.quickest_way(out, torch.randn(1, 32, 8300)) is first


def test_no_timing_decides_under_deterministic_algorithms() -> None:
    x, out = torch.randn(1, 64, 4096), torch.empty(1, 64, 64)
    torch.use_deterministic_algorithms(True)
    try:
        assert symmetric.quickest_way(out, x) is symmetric.gemm
    finally:
        torch.use_deterministic_algorithms(False)


def test_only_float32_is_timed() -> None:
    x = torch.randn(1, 64, 4096, dtype=torch.float64)
    assert symmetric.quickest_way(x.new_empty(1, 64, 64), x) is symmetric.gemm


def test_the_scale_is_applied_to_every_block() -> None:
    x = torch.randn(12, 300)
    out = torch.empty(2, 6, 6)
    linear_gram_([(slice(0, 12), out)], x, alpha=0.5)
    blocks = x.view(2, 6, 300)
    torch.testing.assert_close(out, 0.5 * blocks @ blocks.mT, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "shape", [(1, 64, 65536), (256, 16, 16384), (64, 64, 16384), (1, 1024, 8192)]
)
def test_a_trial_is_small_beside_the_run(shape: tuple[int, int, int]) -> None:
    blocks, m, d = shape
    width = symmetric.trial_width(*shape)
    assert 64 <= width <= d
    assert 2 * blocks * m * m * width <= 1 << 29


def test_blocks_too_large_to_try_take_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symmetric, "_try", None)
    x, out = torch.empty(1, 4100, 256), torch.empty(1, 4100, 4100)
    way = symmetric.quickest_way(out, x)
    assert way.func is symmetric.panels
    assert way.keywords == {"width": 513}  # 8 of them: 9/16 of the arithmetic


@pytest.mark.parametrize(
    ("threads", "blocks", "m", "widths"),
    [
        *[(1, 1, 16, [16]), (1, 1, 64, [16]), (1, 1, 182, [32]), (1, 1, 256, [64])],
        *[(1, 1, 800, [100]), (8, 1, 800, [100]), (2, 4, 16, [16]), (2, 8, 64, [32, 64])],
        *[(2, 1, 64, [32, 64, (32, 4)]), (8, 1, 64, [64, (32, 16)]), (2, 1, 16, [16, (32, 4)])],
    ],
)
def test_few_panels_are_tried(
    threads: int,
    blocks: int,
    m: int,
    widths: list[int | tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    tried = [way.keywords for way in symmetric.ways(blocks, m)[1:]]
    assert [(k["width"], k["chunks"]) if "chunks" in k else k["width"] for k in tried] == widths


def test_a_trial_leaves_the_features_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symmetric, "_fastest", {})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    x, out = torch.randn(1, 32, 8192), torch.empty(1, 32, 32)
    before, version = x.clone(), x._version
    symmetric.quickest_way(out, x)
    assert torch.equal(x, before)
    assert x._version == version
