"""Work handed to a GPU once, recorded, and done again without Python."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import torch

# Torch records one graph at a time in a process.
_LOCK = threading.Lock()


def available(device: torch.device) -> bool:
    """Can work be recorded there?"""
    return device.type == "cuda"


def recorded(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Record what the work hands to the device, without doing it; returns what does it.

    Raises:
        Exception: whatever the work raised, or CUDA where an operation cannot be recorded.
    """
    graph: Any = torch.cuda.CUDAGraph()
    pool, stream = torch.cuda.graph_pool_handle(), _stream(device)
    with _LOCK:
        _free_workspaces()
        try:
            # Twice the stream: where ending a failed recording raises, the inner one stays.
            with (
                torch.cuda.stream(stream),
                torch.cuda.graph(
                    graph, pool=pool, stream=stream, capture_error_mode="thread_local"
                ),
            ):
                work()
        except BaseException:
            _abandon(device, pool)
            raise
        finally:
            _free_workspaces()
    return lambda: graph.replay()


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings: cuBLAS keeps memory for every stream that it has seen."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _free_workspaces() -> None:
    """What cuBLAS took from a recording's memory would keep all of that alive."""
    free = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if free is not None:
        free()


def _abandon(device: torch.device, pool: Any) -> None:
    """Tell the allocator and the random numbers that a failed recording has ended.

    Torch leaves that out: up to 2.11 all later random numbers of the device would fail, the
    user's own too. A recording that succeeds brings them back.
    """
    index = device.index if device.index is not None else torch.cuda.current_device()
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        with suppress(AttributeError, RuntimeError):  # torch without it, or no longer recording
            getattr(torch._C, name)(index, pool)
    with suppress(Exception):
        empty, stream = torch.cuda.CUDAGraph(), _stream(device)
        with (
            torch.cuda.stream(stream),
            torch.cuda.graph(empty, stream=stream, capture_error_mode="thread_local"),
        ):
            torch.zeros(1, device=device)
