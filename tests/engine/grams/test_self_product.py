"""X X' by each way that `self_product` knows, and the choice between them."""

import os
import subprocess
import sys

import pytest
import torch

from cka_widget.engine.grams import self_product
from cka_widget.engine.grams.gram import linear_gram_

WAYS = [self_product.gemm, self_product.panels]


@pytest.fixture(params=[True, False], ids=["oneDNN", "BLAS"])
def onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Panels by oneDNN, where this torch has it, and by BLAS, as where it has not."""
    if not request.param:
        monkeypatch.setattr(self_product, "_times_transpose", lambda a, b: a @ b.mT)
    elif self_product._onednn() is None:
        pytest.skip("this torch has no oneDNN")


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(1, 64, 300), (3, 17, 512), (2, 2, 5), (1, 5, 1)])
def test_every_way_agrees_with_float64(way: self_product.Way, shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape)
    # Rows of a wider buffer, as in the stack; what stands there before must not shine through.
    out = torch.full((5, shape[0] * shape[1] ** 2), torch.nan)[3].view(*shape[:2], shape[1])
    way(out, x)
    truth = x.double() @ x.double().mT
    torch.testing.assert_close(out.double(), truth, rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_takes_features_that_are_not_contiguous(way: self_product.Way) -> None:
    x = torch.randn(2, 16, 700)[:, :, 20:600]
    out = torch.empty(2, 16, 16)
    way(out, x)
    torch.testing.assert_close(out, x.contiguous() @ x.contiguous().mT, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "dtype", "way"),
    [
        *[
            ((1, 64, 4096), torch.float32, self_product.panels),
            ((1, 64, 4095), None, self_product.gemm),
        ],
        *[
            ((4, 16, 32768), torch.float32, self_product.panels),
            ((4, 16, 32767), None, self_product.gemm),
        ],
        *[((1, 4100, 256), None, self_product.panels), ((1, 15, 65536), None, self_product.gemm)],
        ((1, 64, 4096), torch.float64, self_product.gemm),
    ],
)
def test_the_shape_decides(
    shape: tuple[int, int, int], dtype: torch.dtype | None, way: self_product.Way
) -> None:
    x = torch.empty(shape, dtype=dtype or torch.float32)
    assert self_product.way(x.new_empty(shape[0], shape[1], shape[1]), x) is way


SCRIPT = """
import hashlib, torch
from cka_widget.engine.compare import compare
torch.set_num_threads({threads})
torch.manual_seed(0)
def net(width):
    parts = [torch.nn.Conv2d(3, width, 3, padding=1), torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
    return torch.nn.Sequential(*parts, torch.nn.Conv2d(width, 24, 3, 2), torch.nn.Flatten())
models, batches = {{"a": net(16), "b": net(20)}}, list(torch.randn(192, 3, 24, 24).split(64))
found = hashlib.sha256()
for block in (None, 16):
    result = compare(models, batches, progress=False, hsic_batch_size=block)
    for array in (result.sums.h, result.sums.hh, result.sums.moments):
        found.update(array.tobytes())
print(found.hexdigest())
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_equal_scripts_give_equal_bits(threads: int) -> None:
    """In processes of their own, at the same time: what is quick in one may not be in another."""
    script = [sys.executable, "-W", "ignore", "-c", SCRIPT.format(threads=threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    running = [
        subprocess.Popen(script, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(4)
    ]
    found = [process.communicate(timeout=120)[0].strip() for process in running]
    assert len(found[0]) == 64
    assert len(set(found)) == 1


def test_the_scale_is_applied_to_every_block() -> None:
    x = torch.randn(12, 300)
    out = torch.empty(2, 6, 6)
    linear_gram_([(slice(0, 12), out)], x, alpha=0.5)
    blocks = x.view(2, 6, 300)
    torch.testing.assert_close(out, 0.5 * blocks @ blocks.mT, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("threads", "m", "width"),
    [
        *[(1, 16, 16), (1, 64, 16), (1, 182, 32), (1, 256, 64), (1, 800, 100), (8, 4100, 513)],
        *[(2, 16, 16), (2, 64, 32), (8, 64, 64), (2, 256, 128)],
    ],
)
def test_panels_are_few(threads: int, m: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert self_product.width(m) == width
