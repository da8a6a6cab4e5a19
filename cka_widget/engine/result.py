"""What a run gives: scores, error bars, reasons; numpy and pandas only."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cka_widget.engine import intervals, null
from cka_widget.engine.rows import ModelRows, RowIndex
from cka_widget.engine.sums import MIN_BLOCKS, Array, HsicSums

if TYPE_CHECKING:
    # Loaded by the first frame: an explorer is on screen before it has any.
    import pandas as pd

NEVER_TOGETHER = "never computed together"


@dataclass(frozen=True)
class CKAResult:
    """CKA between all layers of all particles of the models, with standard errors.

    Immutable. Rows of `sums` are model by model, particle by particle, layer by layer.

    Attributes:
        rows: one `ModelRows` a model.
        sums: the HSIC sums everything is computed from.
        pooled: the same of the layers' means over particle pairs, model by model, layer by
            layer; None without ensembles.
        row_reasons: for every row why it is undefined, or None.
        samples: samples that went in.
        batches: batches that went in.
        warnings: what would mislead the reader, in sentences.
        provenance: versions, device, kernel, estimator, reductions, seconds.
    """

    rows: tuple[ModelRows, ...]
    sums: HsicSums
    row_reasons: tuple[str | None, ...]
    samples: int
    batches: int
    pooled: HsicSums | None = None
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(m.name for m in self.rows)

    @property
    def blocks(self) -> int:
        """Number of HSIC blocks the estimate averages."""
        return self.sums.blocks

    def layers(self, model: str) -> list[str]:
        """Labels of a model's layers, in order; KeyError where there is no such model."""
        return list(self._index.model(model).layers)

    def n_particles(self, model: str) -> int:
        """Number of particles; 1 for a single model, KeyError for none."""
        return self._index.model(model).n_particles

    def matrix(self, row_model: str, col_model: str) -> pd.DataFrame:
        """CKA, layers x layers; the mean over particle pairs of ensembles.

        An ensemble against itself averages the pairs of different particles; a single model
        against itself is its self-similarity. Values are not clamped: the unbiased estimator
        may fall a little below 0 or above 1.

        Args:
            row_model: model of the rows.
            col_model: model of the columns; may be the same.

        Returns:
            A frame of layers by layers; NaN is undefined, see `why`.

        Raises:
            KeyError: no such model; the message names those there are.
        """
        return self.mean_over_pairs(self._cka, row_model, col_model)

    def mean_over_pairs(self, full: Array, row_model: str, col_model: str) -> pd.DataFrame:
        """Something of all pairs of rows (R, R) as `matrix` shows it, layers x layers."""
        mean = self.over_pairs(full, row_model, col_model).mean(axis=0)
        return self._frame(mean, row_model, col_model)

    def over_pairs(self, full: Array, row_model: str, col_model: str) -> Array:
        """Something of all pairs of rows (R, R), by particle pairs: (pairs, layers, layers)."""
        return self._index.pairs(full, row_model, col_model)

    def stderr(self, row_model: str, col_model: str) -> pd.DataFrame:
        """Standard error of `matrix`, layers x layers; NaN under 5 blocks.

        Args:
            row_model: model of the rows.
            col_model: model of the columns; may be the same.

        Returns:
            A frame as of `matrix`, at least 0; NaN too where the score is undefined.

        Raises:
            KeyError: no such model; the message names those there are.
        """
        return self._frame(self._shown_stderr(row_model, col_model), row_model, col_model)

    def interval(
        self, row_model: str, col_model: str, level: float = 0.95
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Ends of every cell's confidence interval, by Student's t: see `intervals.interval`.

        Args:
            row_model: model of the rows.
            col_model: model of the columns; may be the same.
            level: probability that the interval holds the score, between 0 and 1.

        Returns:
            Lower and upper ends, two frames as of `matrix`; NaN under 5 blocks.

        Raises:
            KeyError: no such model; the message names those there are.
            ValueError: `level` is not between 0 and 1.
        """
        return intervals.interval(self, row_model, col_model, level)

    def null(self, row_model: str, col_model: str) -> pd.DataFrame:
        """Standard deviation of `matrix` were rows paired at random; its mean is then 0.

        Args:
            row_model: model of the rows.
            col_model: model of the columns; may be the same.

        Returns:
            A frame as of `matrix`, at least 0; NaN where the score is undefined.

        Raises:
            KeyError: no such model; the message names those there are.
            ValueError: the biased estimator, whose mean by chance is not 0.
        """
        return null.null(self, row_model, col_model)

    def above_chance(self, row_model: str, col_model: str, alpha: float = 0.01) -> pd.DataFrame:
        """Scores that chance does not explain, at level alpha for the whole matrix; booleans.

        Args:
            row_model: model of the rows.
            col_model: model of the columns; may be the same.
            alpha: probability that chance alone marks any cell, between 0 and 1.

        Returns:
            A frame as of `matrix`, False where the score is undefined.

        Raises:
            KeyError: no such model; the message names those there are.
            ValueError: `alpha` is not between 0 and 1, or the estimator is biased.
        """
        return null.above_chance(self, row_model, col_model, alpha)

    def spread(self, row_model: str, col_model: str) -> pd.DataFrame:
        """Standard deviation over particle pairs, layers x layers; NaN where there is one pair.

        Args:
            row_model: model of the rows.
            col_model: model of the columns; may be the same.

        Returns:
            A frame as of `matrix`, at least 0.

        Raises:
            KeyError: no such model; the message names those there are.
        """
        pairs = self.over_pairs(self._cka, row_model, col_model)
        values = pairs.std(axis=0, ddof=1) if len(pairs) > 1 else np.full(pairs.shape[1:], np.nan)
        return self._frame(values, row_model, col_model)

    def particles(self, row_model: str, col_model: str, *, row: str, col: str) -> pd.DataFrame:
        """CKA of every pair of particles at one cell, particles x particles.

        Args:
            row_model: model of the rows.
            col_model: model of the columns; may be the same.
            row: layer of `row_model`.
            col: layer of `col_model`.

        Returns:
            A frame of particles by particles, not clamped; NaN is undefined.

        Raises:
            KeyError: no such model or layer; the message says why, or offers the nearest name.
        """
        return self._particle_frame(self._cka, row_model, col_model, row, col)

    def particles_stderr(
        self, row_model: str, col_model: str, *, row: str, col: str
    ) -> pd.DataFrame:
        """Standard errors of `particles`.

        Args:
            row_model: model of the rows.
            col_model: model of the columns; may be the same.
            row: layer of `row_model`.
            col: layer of `col_model`.

        Returns:
            A frame of particles by particles, at least 0; NaN under 5 blocks.

        Raises:
            KeyError: no such model or layer; the message says why, or offers the nearest name.
        """
        return self._particle_frame(self._stderr, row_model, col_model, row, col)

    def particles_along(self, row_model: str, col_model: str, *, row: str) -> Array:
        """CKA of every pair of particles at one row, (P, Q, layers of the column's model)."""
        at = self._index.layer(row_model, row)
        along: Array = self._index.blocks(self._cka, row_model, col_model)[:, :, at]
        return along

    def reasons(self, model: str) -> list[str | None]:
        """For every layer why it is undefined, or None; a particle is named where only it is."""
        rows = self._index.model(model)
        table = np.array(self._reasons, dtype=object)[self._index.of(model)]
        found: list[str | None] = []
        for column in table.reshape(rows.n_particles, len(rows.layers)).T:
            bad = [(p, r) for p, r in enumerate(column) if r]
            if not bad:
                found.append(None)
            elif len(bad) == rows.n_particles:
                found.append(bad[0][1])
            else:
                found.append(f"particle {bad[0][0]}: {bad[0][1]}")
        return found

    def why(self, row_model: str, col_model: str, row: str, col: str) -> str | None:
        """Why a cell is undefined, or None where it has a value.

        Args:
            row_model: model of the rows.
            col_model: model of the columns; may be the same.
            row: layer of `row_model`.
            col: layer of `col_model`.

        Returns:
            A sentence that names the layer at fault, or None.

        Raises:
            KeyError: no such model or layer; the message says why, or offers the nearest name.
        """
        r, c = self._index.layer(row_model, row), self._index.layer(col_model, col)
        if not np.isnan(self.matrix(row_model, col_model).iat[r, c]):
            return None
        for model, index, label in ((row_model, r, row), (col_model, c, col)):
            reason = self.reasons(model)[index]
            if reason:
                return f"{model} {label}: {reason}"
        return NEVER_TOGETHER

    def to_frame(self) -> pd.DataFrame:
        """Every score once, tidy: model, particle and layer of row and column, cka, stderr."""
        import pandas as pd

        labels = [
            (m.name, particle, layer)
            for m in self.rows
            for particle, layer in itertools.product(range(m.n_particles), m.layers)
        ]
        i, j = np.triu_indices(len(labels))
        columns: dict[str, Any] = {}
        for side, index in (("row", i), ("col", j)):
            for k, what in enumerate(("model", "particle", "layer")):
                columns[f"{what}_{side}"] = [labels[n][k] for n in index]
        return pd.DataFrame({**columns, "cka": self._cka[i, j], "stderr": self._stderr[i, j]})

    def to_dict(self, row_model: str | None = None, col_model: str | None = None) -> dict[str, Any]:
        """One matrix under the keys of torch_cka's `export()`; "CKA" is an array (rows, columns).

        Without names the first model's layers are the rows, the last one's the columns.
        """
        names = (row_model or self.models[0], col_model or self.models[-1])
        data = self.provenance.get("datasets") or {}
        found: dict[str, Any] = {f"model{k}_name": name for k, name in enumerate(names, start=1)}
        found["CKA"] = self.matrix(*names).to_numpy()
        found |= {f"model{k}_layers": self.layers(name) for k, name in enumerate(names, start=1)}
        return found | {f"dataset{k}_name": data.get(n) for k, n in enumerate(names, start=1)}

    def plot(self, row_model: str | None = None, col_model: str | None = None, **how: Any) -> Any:
        """Draw one matrix with matplotlib; returns the axes. Options: see `plotting.draw`."""
        from cka_widget.plotting import plot

        return plot(self, row_model, col_model, **how)

    def to_html(self, path: Any = None, **how: Any) -> str:
        """The interactive page in one file, without kernel or network: see `report.to_html`."""
        from cka_widget.report import to_html

        return to_html(self, path, **how)

    def merge(self, other: CKAResult) -> CKAResult:
        """The same layers over more data; a new result. See `combine.merge`.

        Args:
            other: of the same models and layers, over other samples.

        Returns:
            The merged result; both inputs stay as they are.

        Raises:
            ValueError: the layers, particles, kernels, estimators or batch weights differ.
        """
        from cka_widget.engine.combine import merge

        return merge(self, other)

    def require_same_options(self, other: CKAResult, action: str) -> None:
        """Raises ValueError where the two were computed differently."""
        # Of `compare`, and of older files; torch_cka's batches count alike.
        usual = {"batch_weights": "samples", "groups": False}
        for key in ("kernel", "unbiased", "bandwidth", "reduce", "batch_weights", "groups"):
            mine, theirs = (r.provenance.get(key, usual.get(key)) for r in (self, other))
            if mine != theirs:
                raise ValueError(f"{action} needs the same {key} in all: {mine!r} and {theirs!r}")

    def save(self, path: Any) -> None:
        """Write one safetensors file, sums included; `cka_widget.load` reads it.

        Args:
            path: of the file, which is replaced where it exists.

        Raises:
            FileNotFoundError: the directory does not exist.
            OSError: the file cannot be written.
        """
        from cka_widget.engine.storage import save

        save(self, path)

    def worst_stderr(self) -> float:
        """Largest standard error of any shown cell; NaN while there is none."""
        pairs = itertools.combinations_with_replacement(self.models, 2)
        found = [self._shown_stderr(a, b) for a, b in pairs]
        found = [f[~np.isnan(f)] for f in found]
        return max((float(f.max()) for f in found if f.size), default=float("nan"))

    def _shown_stderr(self, row_model: str, col_model: str) -> Array:
        if self.n_particles(row_model) == self.n_particles(col_model) == 1:
            values = self.over_pairs(self._stderr, row_model, col_model)[0]
        else:
            values = self._pooled_stderr[
                self._index.layers_of(row_model), self._index.layers_of(col_model)
            ]
        undefined = np.isnan(self.over_pairs(self._cka, row_model, col_model).mean(axis=0))
        return np.where(undefined, np.nan, values)

    @cached_property
    def _index(self) -> RowIndex:
        return RowIndex(self.rows)

    @cached_property
    def _cka(self) -> Array:
        return self.sums.cka()

    @cached_property
    def _stderr(self) -> Array:
        stderr = self.sums.stderr()
        own = np.diagonal(stderr)
        np.fill_diagonal(stderr, np.where(np.isnan(own), np.nan, 0))  # always 1, to rounding
        return stderr

    @cached_property
    def _pooled_stderr(self) -> Array:
        return (self.pooled or self.sums).stderr()

    @cached_property
    def _reasons(self) -> list[str | None]:
        found = list(self.row_reasons)
        own = self.sums.d
        for row, value in enumerate(own):
            if found[row] is not None or value > 0:
                continue
            if not self.blocks:
                found[row] = "too few samples"
            elif np.isnan(value):
                found[row] = "its output holds NaN or infinite values"
            elif value == 0:
                found[row] = "always the same output"
            else:
                found[row] = "too few samples: its self-similarity is not above zero"
        return found

    def _frame(self, values: Array, row_model: str, col_model: str) -> pd.DataFrame:
        import pandas as pd

        index = pd.Index(self.layers(row_model), name=row_model)
        columns = pd.Index(self.layers(col_model), name=col_model)
        return pd.DataFrame(values, index=index, columns=columns)

    def _particle_frame(
        self, full: Array, row_model: str, col_model: str, row: str, col: str
    ) -> pd.DataFrame:
        import pandas as pd

        r, c = self._index.layer(row_model, row), self._index.layer(col_model, col)
        values = self._index.blocks(full, row_model, col_model)[:, :, r, c]
        index = pd.RangeIndex(values.shape[0], name=row_model)
        return pd.DataFrame(values, index, pd.RangeIndex(values.shape[1], name=col_model))

    def __repr__(self) -> str:
        models = ", ".join(
            f"{m.name}"
            + (f" x{m.n_particles}" if m.n_particles > 1 else "")
            + f" ({len(m.layers)} layers)"
            for m in self.rows
        )
        few = f", too few blocks ({self.blocks}) for error bars" * (self.blocks < MIN_BLOCKS)
        return f"CKAResult({models}; {self.samples} samples{few})"
