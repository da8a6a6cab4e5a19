"""Which operations a recorded graph could do again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cka_widget.engine.recordable import Recordable

CPU = torch.device("cpu")
X = torch.arange(6.0).view(2, 3)


@torch.library.custom_op(
    "cka_widget_tests::index_of", mutates_args=(), schema="(Tensor x, int[] which) -> Tensor"
)
def index_of(x: Tensor, which: list[int]) -> Tensor:
    return x[:, which].clone()


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (lambda: X @ X.mT, None),
        (lambda: X[torch.tensor([0, 1])], None),
        (lambda: index_of(X, [1, 0]), None),
        (lambda: X.masked_fill(X > 2, 0.0), None),
        (lambda: torch.where(X > 2, X, 1.0), None),
        (lambda: X.clone().index_add_(0, torch.tensor([0]), X[:1]), None),
        (lambda: X.sum().item(), "the host must know"),
        (lambda: X.nonzero(), "the host must know"),
        (lambda: X[X > 2], "the host must know"),
        (lambda: X.clone().index_put_((X > 2,), torch.tensor(1.0)), "the host must know"),
        (lambda: torch.equal(X, X), "the host must know"),
        (lambda: X.to("meta"), "memory of meta"),
        (lambda: X.sum().to("meta"), "memory of meta"),
        (lambda: X.to_sparse() * 2, "sparse tensors"),
    ],
)
def test_operations(operation: Callable[[], Any], reason: str | None) -> None:
    with Recordable(CPU) as found:
        operation()
    assert (found.reason or "").endswith(reason or "")
    assert (found.reason is None) == (reason is None)


def test_operations_with_rules_of_their_own() -> None:
    """Those of higher order, such as `flex_attention`."""
    why = Recordable(CPU)._why(torch.ops.higher_order.cond, (X,), {}, X)
    assert why == "runs others by its own rules"
