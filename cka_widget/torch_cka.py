"""The interface of the package torch_cka on this engine: a script changes its import line only.

How the numbers differ from torch_cka's, and why: docs/differences.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn

from cka_widget.engine.errors import CKAWarning
from cka_widget.engine.models.layers import OUTPUT, unwrap
from cka_widget.result.export import plotting
from cka_widget.result.result import CKAResult
from cka_widget.torch_cka_run import Names, Run


class CKA:
    """CKA between the layers of two models.

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    >>> cka = CKA(net, net, model1_name="one", model2_name="two", model1_layers=["0", "2"])
    >>> cka.compare(DataLoader(TensorDataset(torch.randn(64, 8)), batch_size=16))
    >>> cka.export()["CKA"].shape
    torch.Size([2, 4])

    Attributes:
        result: after `compare` the `CKAResult`, with standard errors and reasons; of a comparison
            that failed or was interrupted, what its finished batches gave.
    """

    def __init__(
        self,
        model1: nn.Module,
        model2: nn.Module,
        model1_name: str | None = None,
        model2_name: str | None = None,
        model1_layers: Names = None,
        model2_layers: Names = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """Nothing is hooked, moved or switched to evaluation before `compare`, nor after it.

        Args:
            model1: the model of the rows.
            model2: the model of the columns; may be `model1`.
            model1_name: name of `model1`; its class where None.
            model2_name: name of `model2`; its class where None.
            model1_layers: dotted module names; None takes every module that runs.
            model2_layers: the same for `model2`.
            device: where the models run.
        """
        self.model1, self.model2, self.device = model1, model2, device
        self.model1_name = _name(model1) if model1_name is None else model1_name
        self.model2_name = _name(model2) if model2_name is None else model2_name
        self.model1_layers, self.model2_layers = model1_layers, model2_layers
        self.result: CKAResult | None = None
        self._labels: tuple[list[str], list[str]] = ([], [])
        # The engine tells models apart by name.
        self._keys = (self.model1_name, self.model2_name)
        if self.model1_name == self.model2_name:
            self._keys = (f"{self.model1_name} (1)", f"{self.model2_name} (2)")
            warnings.warn(
                f'Both models are called "{self.model1_name}": give model1_name and model2_name '
                "to tell them apart.",
                CKAWarning,
                stacklevel=2,
            )

    def compare(self, dataloader1: Any, dataloader2: Any = None) -> None:
        """Run both models over the data, which is iterated once.

        Args:
            dataloader1: batches; of a tuple the first element goes into the model.
            dataloader2: batches for `model2`, row-aligned with those of `dataloader1`; where one
                is longer, its surplus batches are left out.

        Raises:
            CompareError: a model or a loader failed; what was computed is in `result`.
            ValueError: a layer that does not exist; the message offers the nearest name.
        """
        loader, max_batches = dataloader1, None
        if dataloader2 is not None:
            loader = dict(zip(self._keys, (dataloader1, dataloader2), strict=True))
            max_batches = _shorter(dataloader1, dataloader2)
        models = dict(zip(self._keys, (self.model1, self.model2), strict=True))
        layers = (self.model1_layers, self.model2_layers)
        run = Run(models, layers, loader, device=self.device, max_batches=max_batches)
        try:
            run.drain()
        finally:
            self.result = run.result
            one, other = (run.labels.get(key, []) for key in self._keys)
            self._labels = (one, other)

    def export(self) -> dict[str, Any]:
        """The matrix "CKA" (float32, layers x layers) with the names of models, layers and data.

        Rows and labels are in the order in which the layers ran; the model itself is "".

        Raises:
            RuntimeError: nothing was computed yet.
        """
        result = _done(self.result)
        found = result.to_dict(*self._keys)
        found["model1_name"], found["model2_name"] = self.model1_name, self.model2_name
        for side, labels in enumerate(self._labels, start=1):
            found[f"model{side}_layers"] = ["" if s == OUTPUT else s for s in labels]
        found["CKA"] = _values(result, self._keys, self._labels)
        return found

    def plot_results(self, save_path: str | None = None, title: str | None = None) -> None:
        """Draw the matrix, first layers at the bottom left; shown, and saved at 300 dpi.

        Args:
            save_path: of the picture; its ending says the format. None saves nothing.
            title: above the matrix; None names the models.

        Raises:
            RuntimeError: nothing was computed yet.
            OSError: `save_path` cannot be written.
        """
        _plot(
            _values(_done(self.result), self._keys, self._labels),
            self._labels,
            (f"Layers {self.model1_name}", f"Layers {self.model2_name}"),
            title=title or f"{self.model1_name} vs {self.model2_name}",
            save_path=save_path,
        )


class EnsembleCKA:
    """Mean CKA between the layers of an ensemble, over all pairs of different particles.

    Attributes:
        result: after `compare` the `CKAResult`, with standard errors and every pair's scores; of
            a comparison that failed or was interrupted, what its finished batches gave.
    """

    def __init__(
        self,
        models: Iterable[nn.Module],
        model_names: Names = None,
        model_layers: Sequence[Sequence[str]] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """Nothing is hooked, moved or switched to evaluation before `compare`, nor after it.

        Args:
            models: the particles, at least two.
            model_names: one name a particle; the classes where None.
            model_layers: one list of dotted module names a particle, equally long: where names
                differ, the i-th of one stands against the i-th of the others. None takes every
                module that runs.
            device: where the models run.

        Raises:
            ValueError: fewer than two particles, or lists that do not fit them.
        """
        self.models = list(models)
        self.model_names = list(map(_name, self.models) if model_names is None else model_names)
        self.model_layers, self.device = model_layers, device
        self.result: CKAResult | None = None
        self._labels: list[str] = []
        self._matrix = torch.empty(0, 0)
        if len(self.models) < 2:
            raise ValueError(f"an ensemble has at least two models, not {len(self.models)}")
        for what, given in (("model_names", model_names), ("model_layers", model_layers)):
            if given is not None and len(given) != len(self.models):
                raise ValueError(f"{what} has {len(given)} entries for {len(self.models)} models")
        if len({len(layers) for layers in model_layers or []}) > 1:
            raise ValueError("model_layers must name equally many layers of every model")

    def compare(self, dataloader1: Any) -> None:
        """Run every particle once over the data.

        Args:
            dataloader1: batches; of a tuple the first element goes into the models.

        Raises:
            CompareError: a model or the loader failed; what was computed is in `result`.
            ValueError: a layer that does not exist, or particles of different architectures.
        """
        chosen = [tuple(layers) for layers in self.model_layers or [()]]
        if len(set(chosen)) == 1:
            models: dict[str, Any] = {"Ensemble": self.models}
            pairs, chosen = [("Ensemble", "Ensemble")], chosen[:1]
        else:
            keys = [f"{name} #{i}" for i, name in enumerate(self.model_names)]
            models = dict(zip(keys, self.models, strict=True))
            pairs = list(permutations(keys, 2))
        layers = [c or None for c in chosen]
        run = Run(models, layers, dataloader1, device=self.device)
        try:
            run.drain()
        finally:
            self.result, labels = run.result, run.labels
            if run.result is not None:
                matrices = [_values(run.result, (a, b), (labels[a], labels[b])) for a, b in pairs]
                self._matrix = torch.stack(matrices).mean(0)
                self._labels = labels[pairs[0][0]]

    def export(self) -> dict[str, Any]:
        """What `CKA.export` gives, the ensemble being both models; and the particles' names.

        Raises:
            RuntimeError: nothing was computed yet.
        """
        result = _done(self.result)
        layers = ["" if s == OUTPUT else s for s in self._labels]
        return {
            **result.to_dict(),
            "model1_name": "Ensemble",
            "model2_name": "Ensemble",
            "CKA": self._matrix,
            "model1_layers": layers,
            "model2_layers": list(layers),
            "model_names": list(self.model_names),
        }

    def plot_results(self, save_path: str | None = None, title: str | None = None) -> None:
        """Draw the matrix, first layers at the bottom left; shown, and saved at 300 dpi.

        Args:
            save_path: of the picture; its ending says the format. None saves nothing.
            title: above the matrix; None names the models.

        Raises:
            RuntimeError: nothing was computed yet.
            OSError: `save_path` cannot be written.
        """
        _done(self.result)
        _plot(
            self._matrix,
            (self._labels, self._labels),
            ("Layers Ensemble", "Layers Ensemble"),
            title=title or f"Ensemble of {len(self.models)} models",
            save_path=save_path,
            annotate=len(self._labels) <= 20,
        )


def _values(result: CKAResult, models: Sequence[str], labels: Sequence[Sequence[str]]) -> Tensor:
    aliases = {rows.name: rows.aliases for rows in result.rows}
    rows, cols = (
        [aliases[model].get(label, label) for label in shown]
        for model, shown in zip(models, labels, strict=True)
    )
    matrix = result.matrix(*models).loc[rows, cols]
    return torch.tensor(matrix.to_numpy(), dtype=torch.float32)


def _plot(
    matrix: Tensor,
    labels: Sequence[Sequence[str]],
    names: tuple[str, str],
    *,
    save_path: str | None,
    **options: Any,
) -> None:
    from matplotlib import pyplot as plt

    (rows, cols), (row_name, col_name) = labels, names
    options["origin"] = "lower"
    plotting.draw(matrix.numpy(), rows, cols, row_name, col_name, **options)
    if save_path is not None:
        plt.gcf().savefig(save_path, dpi=300)
    with warnings.catch_warnings():
        # Without a screen there is nothing to show, and the saved picture is enough.
        warnings.filterwarnings("ignore", ".*non-interactive", UserWarning)
        plt.show()


def _done(result: CKAResult | None) -> CKAResult:
    if result is None:
        raise RuntimeError("nothing to show yet: call compare(dataloader) first")
    return result


def _name(model: nn.Module) -> str:
    return type(unwrap(model)).__name__


def _shorter(one: Any, other: Any) -> int | None:
    if not (hasattr(one, "__len__") and hasattr(other, "__len__")) or len(one) == len(other):
        return None
    fewest = min(len(one), len(other))
    warnings.warn(
        f"The loaders give {len(one)} and {len(other)} batches: the first {fewest} are compared.",
        CKAWarning,
        stacklevel=3,
    )
    return fewest
