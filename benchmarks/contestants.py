"""This project and its peers behind one call: `run(workload, batches)` gives the matrix.

Peers are run as their documentation shows. What they leave behind (hooks, progress bars) is
cleared outside the timed part.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from workloads import Workload

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

Run = Callable[[Workload, list[Tensor]], pd.DataFrame | None]


@dataclass
class Contestant:
    """A way to compute the matrix; `batches` limits how many a slow one is given."""

    name: str
    run: Run
    batches: int | None = None
    rounds: int | None = None
    own: bool = False


class _Ready(Dataset):
    """Batches as they are: no contestant is charged for collating."""

    def __init__(self, batches: list[Tensor]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Tensor]:
        return (self.batches[index],)


def _loader(batches: list[Tensor]) -> DataLoader:
    return DataLoader(_Ready(batches), batch_size=None)


def bare(workload: Workload, batches: list[Tensor]) -> None:
    """The floor: every model runs once on every batch, under inference mode."""
    with torch.inference_mode():
        for batch in batches:
            for root in workload.roots:
                root(batch)


def this_project(hsic_batch_size: int | None) -> Run:
    def run(workload: Workload, batches: list[Tensor]) -> pd.DataFrame:
        from cka_widget.engine.compare import compare

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = compare(
                workload.models,
                batches,
                layers=workload.layers,
                hsic_batch_size=hsic_batch_size,
                device="cpu",
                progress=False,
            )
        names = list(workload.models)
        return result.matrix(names[0], names[-1])

    return run


def _pair(workload: Workload) -> tuple[nn.Module, nn.Module]:
    if workload.ensemble:
        raise NotImplementedError("compares two models only")
    roots = workload.roots
    return roots[0], roots[-1]


def torch_cka(workload: Workload, batches: list[Tensor]) -> pd.DataFrame:
    from torch_cka import CKA

    a, b = _pair(workload)
    rows, cols = workload.names(a), workload.names(b)
    cka = CKA(a, b, "a", "b", model1_layers=rows, model2_layers=cols, device="cpu")
    cka.compare(_loader(batches))
    out = cka.export()
    return pd.DataFrame(out["CKA"].detach().numpy(), out["model1_layers"], out["model2_layers"])


def pytorch_cka(workload: Workload, batches: list[Tensor]) -> pd.DataFrame:
    from cka import compute_cka

    a, b = _pair(workload)
    rows, cols = workload.names(a), workload.names(b)
    found = compute_cka(
        a, b, _loader(batches), layers=rows, model2_layers=cols, device="cpu", progress=False
    )
    matrix = found[0] if isinstance(found, (list, tuple)) else found
    return pd.DataFrame(matrix.numpy(), rows, cols)


def ckatorch(workload: Workload, batches: list[Tensor]) -> pd.DataFrame:
    from ckatorch import CKA

    a, b = _pair(workload)
    cka = CKA(a, b, workload.names(a), workload.names(b), device="cpu")
    matrix = cka(_loader(batches), epochs=1)
    return pd.DataFrame(matrix.numpy(), cka.first_model_info.layers, cka.second_model_info.layers)


def ensemble_cka(checkout: Path) -> Run:
    """`EnsembleCKA` of the torch_cka fork, from a checkout (it is in no package index)."""

    def run(workload: Workload, batches: list[Tensor]) -> pd.DataFrame:
        if not workload.ensemble:
            raise NotImplementedError("compares ensembles only")
        roots = workload.roots
        names = workload.names(roots[0])
        cka = _fork(checkout).EnsembleCKA(
            list(roots), [str(i) for i in range(len(roots))], [names] * len(roots), device="cpu"
        )
        cka.compare(_loader(batches))
        return pd.DataFrame(cka.hsic_matrix.detach().numpy(), names, names)

    return run


def _fork(checkout: Path) -> ModuleType:
    # The fork's package has the name of the original: it is loaded under another one.
    package = checkout / "torch_cka"
    if (found := sys.modules.get("torch_cka_fork")) is not None:
        return found
    spec = importlib.util.spec_from_file_location(
        "torch_cka_fork", package / "cka.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["torch_cka_fork"] = module
    spec.loader.exec_module(module)
    return module


def contestants(workload: Workload, fork: Path | None) -> list[Contestant]:
    """All of them; slow ones get one batch and one round."""
    found = [
        Contestant(f"cka_widget, HSIC batch {size or 'whole'}", this_project(size), own=True)
        for size in workload.hsic
    ]
    if workload.ensemble:
        if fork is not None:
            found.append(Contestant("EnsembleCKA (fork)", ensemble_cka(fork), 1, 1))
        return found
    found.append(Contestant("pytorch-cka", pytorch_cka))
    found.append(Contestant("ckatorch", ckatorch, 1, 2))
    found.append(Contestant("torch-cka", torch_cka, 1, 2))
    return found


@contextlib.contextmanager
def quiet(workload: Workload) -> Iterator[None]:
    """No progress bars or warnings; hooks that a peer left behind are gone afterwards."""
    with (
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for root in workload.roots:
                for module in root.modules():
                    module._forward_hooks.clear()
                root.eval()


def sentence(error: BaseException) -> str:
    """What went wrong, in one short line."""
    lines: list[Any] = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:90]
