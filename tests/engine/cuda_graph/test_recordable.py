"""Which operations a recorded graph could do again."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cka_widget.engine.cuda_graph.recordable import Recordable, searching

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


PROTOTYPE = (
    "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing "
    "operations"
)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (None, None),
        ("called a synchronizing CUDA operation", "makes the host wait for the device"),
    ],
)
def test_torchs_notice_that_it_searches_is_no_finding(
    said: str | None, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch says it once a process, in the first search."""
    modes: list[Any] = [0]

    def set_mode(mode: Any) -> None:
        warnings.warn(PROTOTYPE, UserWarning, stacklevel=2)
        modes.append(mode)

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[0])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with searching(torch.device("cuda")) as found:
        if said is not None:
            warnings.warn(said, UserWarning, stacklevel=1)
    assert modes == [0, "warn", 0]
    assert found.reason is None if reason is None else reason in (found.reason or "")


def test_other_warnings_of_the_search_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    with pytest.warns(UserWarning, match="the model's own"), searching(torch.device("cuda")):
        warnings.warn("the model's own", UserWarning, stacklevel=1)
