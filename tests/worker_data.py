"""Data sets for worker processes: in a module of their own, which a spawned worker can import."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import active_children
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

HANGS = threading.Event()
"""What a data set waits for that hangs; of a worker it is a copy that nobody sets."""


class Rows(Dataset):
    """Eight rows a batch by default; `at` one of them something happens, while `armed`."""

    def __init__(self, what: str = "", at: int = 40, n: int = 64) -> None:
        self.x = torch.randn(n, 8, generator=torch.Generator().manual_seed(3))
        self.what, self.at, self.armed = what, at, True

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Tensor:
        if i == self.at and self.armed:
            self.happen()
        return self.x[i]

    def happen(self) -> None:
        if self.what == "raise":
            raise ValueError("bad sample\nand more of it")
        if self.what == "key":
            raise KeyError("no such file")
        if self.what.startswith("exit"):
            os._exit(int(self.what[4:]))
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "hang":
            HANGS.wait()


class Streamed(IterableDataset):
    """The rows in order: all of them in every worker, or each worker's own."""

    def __init__(self, x: Tensor, divided: bool = False, shuffled: bool = False) -> None:
        self.x, self.divided, self.shuffled = x, divided, shuffled

    def __iter__(self) -> Iterator[Tensor]:
        info, x = get_worker_info(), self.x
        if self.shuffled:
            x = x[torch.randperm(len(x))]
        return iter(x[info.id :: info.num_workers] if info and self.divided else x)


class Wrapped:
    """A loader whose workers start with its first batch, as those of a generator do."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        yield from self.loader


def load(what: str = "", batch_size: int = 8, **options: Any) -> DataLoader:
    return DataLoader(Rows(what), batch_size=batch_size, **options)


def children() -> list[int]:
    """Worker processes that there are."""
    return [process.pid for process in active_children()]
