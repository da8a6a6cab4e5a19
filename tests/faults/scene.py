"""Models, data and options of one fault, and whether all is as it was after it."""

from __future__ import annotations

import multiprocessing
import random
import signal
import threading
import time
import warnings
from functools import cache, partial
from typing import Any

import numpy as np
import torch
import zoo
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cka_widget.engine.compare import compare
from cka_widget.engine.errors import CKAWarning
from cka_widget.engine.models import placement, vmap
from cka_widget.engine.restoring import evaluating
from cka_widget.result.result import CKAResult

BATCHES, SIZE, WIDTH = 5, 32, 8
PATIENCE = 20.0  # seconds that threads and processes have to end


class Violation(AssertionError):
    """Something that must hold after a fault does not."""


class Fuse:
    """Counts how often a run passes each place, and blows at one of those times."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.blown = False
        self._place, self._at, self._error = "", 0, BaseException()

    def set(self, place: str, at: int, error: BaseException) -> None:
        """Count from nothing, and raise the error at the given time."""
        self.seen, self.blown = {}, False
        self._place, self._at, self._error = place, at, error

    def clear(self) -> None:
        self.set("", 0, BaseException())

    def __call__(self, place: str) -> None:
        self.seen[place] = self.seen.get(place, 0) + 1
        if place == self._place and self.seen[place] == self._at:
            self.blown = True
            raise self._error

    @property
    def whole(self) -> int:
        """Batches that were through, whatever came after."""
        return max(0, self.seen.get("next", 0) - 1)


class Fused(nn.Module):
    """In training mode, with a batch norm that moves, dropout, and a frozen part."""

    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self.body, self.norm = nn.Linear(WIDTH, 10), nn.BatchNorm1d(10)
        self.frozen, self.head = nn.BatchNorm1d(10), nn.Linear(10, 3)
        self.fuse = fuse
        self.frozen.eval()
        self.frozen.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.fuse("forward")
        x = nn.functional.dropout(self.norm(self.body(x)), 0.4, self.training)
        return self.head(torch.tanh(self.frozen(x)))


class Loader:
    """Batches from a list, past the fuse."""

    batch_size = SIZE

    def __init__(self, fuse: Fuse) -> None:
        self.fuse = fuse

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Any:
        self.fuse("iter")
        return self._batches()

    def _batches(self) -> Any:
        for batch in data():
            self.fuse("next")
            yield batch
        self.fuse("end")


@cache
def data() -> list[torch.Tensor]:
    return zoo.vectors(BATCHES * SIZE, WIDTH, SIZE)


def collate(fuse: Fuse, items: list[Any]) -> torch.Tensor:
    fuse("next")
    fuse("collate")
    return torch.stack([x for (x,) in items])


class Scene:
    """What a run is given, drawn from `rng`, and what it gives without a fault.

    Attributes:
        fuse: passed by the models, their owner's hooks, the loader and the options.
        models, options: arguments of `compare`.
        expected: its result.
    """

    def __init__(self, rng: random.Random, *, workers: float = 0.0, plain: bool = False) -> None:
        self.fuse = Fuse()
        self._others: dict[str, Any] = {
            "none": {},
            "one": {"b": zoo.mlp(1, WIDTH)},
            "ensemble": {"b": [zoo.mlp(seed, WIDTH) for seed in range(3)]},
        }
        kind = rng.choice(list(self._others))
        self.models: dict[str, Any] = {"a": zoo.seeded(Fused, self.fuse), **self._others[kind]}
        for module in (self.models["a"].body, self.models["a"].head):
            module.register_forward_pre_hook(lambda *_: self.fuse("pre_hook"))
            module.register_forward_hook(lambda *_: self.fuse("hook"))
        self.options: dict[str, Any] = {"device": "cpu", "kernel": rng.choice(["linear", "rbf"])}
        self.options["hsic_batch_size"] = 8 if rng.random() < 0.7 else None
        if kind == "ensemble" and rng.random() < 0.5:
            del self.models["a"]
            self.options["vmap"] = True
        for name in ("forward", "reduce", "samples"):
            if not plain and rng.random() < 0.35:
                self.options[name] = getattr(self, f"_{name}")
        self.kind = "workers" if rng.random() < workers else rng.choice(["list", "torch"])
        self._partials: dict[int, CKAResult] = {}
        self.expected = self.partial(BATCHES)
        self._before = self._state()

    def loader(self) -> Any:
        """A new one, as it was."""
        if self.kind == "list":
            return Loader(self.fuse)
        made = partial(collate, self.fuse)  # a worker passes a copy of the fuse
        workers = 2 if self.kind == "workers" else 0
        return DataLoader(
            TensorDataset(torch.cat(data())), SIZE, collate_fn=made, num_workers=workers
        )

    def run(self, batches: int | None = None, *, progress: bool = False) -> CKAResult:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CKAWarning)
            return compare(
                self.models, self.loader(), max_batches=batches, progress=progress, **self.options
            )

    def roots(self) -> list[nn.Module]:
        given = [one if isinstance(one, list) else [one] for one in self.models.values()]
        return [root for one in given for root in one]

    def partial(self, batches: int) -> CKAResult:
        """What so many batches give."""
        if batches not in self._partials:
            self._partials[batches] = self.run(batches)
        return self._partials[batches]

    def _forward(self, model: nn.Module, batch: Any) -> Any:
        self.fuse("forward=")
        return model(batch)

    def _reduce(self, output: torch.Tensor) -> torch.Tensor:
        self.fuse("reduce=")
        return output.flatten(1)

    def _samples(self, batch: Any) -> int:
        self.fuse("samples=")
        return len(batch)

    # what must hold ------------------------------------------------------------------------------
    def check(self, result: CKAResult | None, *, least: int = 0, what: str = "") -> None:
        """Raises Violation where something is not as before, or a result is not what it says.

        Args:
            result: what the run gave, or its error carries.
            least: batches that it has.
            what: the fault.
        """
        self.fuse.clear()
        if (result.batches if result is not None else 0) < least:
            raise Violation(f"{result and result.batches} batches count of {least}: {what}")
        if result is not None:
            self.check_result(result)
        self.check_state()
        _same(self.run(), self.expected, 0.0, "a fresh run is")
        self.check_state()

    def check_result(self, result: CKAResult, tolerance: float = 0.0) -> None:
        if result.samples != result.batches * SIZE:
            raise Violation(f"{result.samples} samples of {result.batches} batches")
        cut = any("did not fit the memory" in sentence for sentence in result.warnings)
        if cut and (not self.options["hsic_batch_size"] or self.options["kernel"] == "rbf"):
            return  # the blocks are others, or the bandwidth is that of the first piece
        _same(result, self.partial(result.batches), 1e-6 if cut else tolerance, "the result is")

    def check_state(self) -> None:
        end = time.monotonic() + PATIENCE
        while wrong := self._wrong():
            if wrong.split()[0] not in ("threads", "processes") or time.monotonic() > end:
                raise Violation(f"not as before: {wrong}")
            time.sleep(0.005)

    def _wrong(self) -> str:
        before, after = self._before, self._state()
        for name, was in before.items():
            if name == "tensors":
                if not all(map(torch.equal, was, after[name])):
                    return name
            elif name in ("threads", "processes"):
                if after[name] - was:
                    return f"{name} ({after[name] - was} more)"
            elif was != after[name]:
                return f"{name} (before {was}, after {after[name]})"
        return ""

    def _state(self) -> dict[str, Any]:
        roots = self.roots()
        modules = [module for root in roots for module in root.modules()]
        held = (evaluating._evaluated, placement._moved, vmap._fused)
        return {
            "threads": set(threading.enumerate()),
            "processes": set(multiprocessing.active_children()),
            "signal handler": signal.getsignal(signal.SIGINT),
            "hooks": [_hooks(module) for module in modules],
            "training": [module.training for module in modules],
            "attributes": [sorted(vars(module)) for module in modules],
            "gradients": [(p.requires_grad, p.grad) for r in roots for p in r.parameters()],
            "tensors": [t.clone() for r in roots for t in (*r.parameters(), *r.buffers())],
            "settings": _settings(),
            "held": ([len(one._held) for one in held], len(placement._places)),
        }


def _hooks(module: nn.Module) -> dict[str, list[Any]]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return {kind: list(getattr(module, kind).values()) for kind in kinds}


def _settings() -> dict[str, Any]:
    return {
        "gradients": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "fused attention": torch.backends.mha.get_fastpath_enabled(),
        "threads": torch.get_num_threads(),
    }


def _same(found: CKAResult, expected: CKAResult, tolerance: float, what: str) -> None:
    for a in found.models:
        for b in found.models:
            one = found.matrix(a, b)
            other = expected.matrix(a, b).loc[one.index, one.columns]
            if not np.allclose(one, other, rtol=0, atol=tolerance, equal_nan=True):
                raise Violation(f"{what} not that of {found.batches} batches: {one - other}")
