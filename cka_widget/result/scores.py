"""The scores of a run and what is read from them: a record of numpy arrays, and its numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cka_widget.names import did_you_mean
from cka_widget.result import chance, intervals
from cka_widget.result.measure_facts import Measured, MeasureFacts
from cka_widget.result.ranks import rank_difference
from cka_widget.result.row_index import ModelRows, RowIndex
from cka_widget.result.sums import MIN_BLOCKS, Array, HsicSums

if TYPE_CHECKING:
    # Loaded by the first frame: an explorer is on screen before it has any.
    import pandas as pd
    from typing_extensions import Self

NEVER_TOGETHER = "never computed together"


@dataclass(frozen=True)
class Scores:
    """Similarity of all layers of all particles of the models, with standard errors.

    Immutable. Rows of sums are model by model, particle by particle, layer by layer.

    Everywhere `row_model` names the model of the rows and `col_model` that of the columns, which
    may be the same; `row` and `col` name layers of them; `measure` names one of `measures`, the
    first unless another is asked for. An unknown name is a KeyError that says which there are.

    Attributes:
        rows: one `ModelRows` a model.
        sums: the sums that the first measure is computed from.
        pooled: the same of the layers' means over particle pairs, model by model, layer by
            layer; None without ensembles.
        row_reasons: for every row why it is undefined, or None.
        samples: samples that went in.
        batches: batches that went in.
        warnings: what would mislead the reader, in sentences.
        provenance: versions, device, kernel, estimator, reductions, seconds.
        measure: what is known of the first measure.
        others: facts and sums of the further measures.
    """

    rows: tuple[ModelRows, ...]
    sums: HsicSums
    row_reasons: tuple[str | None, ...]
    samples: int
    batches: int
    pooled: HsicSums | None = None
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    measure: MeasureFacts = field(default_factory=MeasureFacts)
    others: tuple[Measured, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(m.name for m in self.rows)

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures, first the one that is shown unless another is asked for."""
        return (self.measure.name, *(one.facts.name for one in self.others))

    def of(self, measure: str | None) -> Self:
        """The same with this measure as its first, of which all else then tells."""
        if measure is None or measure == self.measure.name:
            return self
        all_of_them = (Measured(self.measure, self.sums, self.pooled), *self.others)
        chosen = next((one for one in self.others if one.facts.name == measure), None)
        if chosen is None:
            near = did_you_mean(measure, self.measures)
            known = ", ".join(self.measures)
            raise KeyError(f'no measure "{measure}" in this result{near}; it has {known}')
        return replace(
            self,
            measure=chosen.facts,
            sums=chosen.sums,
            pooled=chosen.pooled,
            others=tuple(one for one in all_of_them if one is not chosen),
        )

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

    def matrix(self, row_model: str, col_model: str, *, measure: str | None = None) -> pd.DataFrame:
        """Scores, layers x layers; the mean over particle pairs of ensembles.

        An ensemble against itself averages the pairs of different particles; a single model
        against itself is its self-similarity. Values are not clamped: an unbiased estimator
        may fall a little below 0 or above 1. NaN is undefined, see `why`.
        """
        shown = self.of(measure)
        return shown.mean_over_pairs(shown.values, row_model, col_model)

    def mean_over_pairs(self, full: Array, row_model: str, col_model: str) -> pd.DataFrame:
        """Something of all pairs of rows (R, R) as `matrix` shows it, layers x layers."""
        mean = self.over_pairs(full, row_model, col_model).mean(axis=0)
        return self._frame(mean, row_model, col_model)

    def over_pairs(self, full: Array, row_model: str, col_model: str) -> Array:
        """Something of all pairs of rows (R, R), by particle pairs: (pairs, layers, layers)."""
        return self._index.pairs(full, row_model, col_model)

    def stderr(self, row_model: str, col_model: str, *, measure: str | None = None) -> pd.DataFrame:
        """Standard error of `matrix`, at least 0; NaN under 5 blocks, and where that is NaN."""
        values = self.of(measure)._shown_stderr(row_model, col_model)
        return self._frame(values, row_model, col_model)

    def interval(
        self,
        row_model: str,
        col_model: str,
        level: float = 0.95,
        *,
        measure: str | None = None,
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Lower and upper ends of every cell's confidence interval; NaN under 5 blocks.

        value -+ (1 + 2 r) t stderr: the spread between a few blocks is itself uncertain, the more
        so where some samples dominate, and 1.96 is too small then; see `intervals.widths`. 2.78
        stderr at 5 even blocks, 2.02 at 40. Means over particle pairs are taken as uneven as their
        worst pair. The interval is for the value of unlimited data in blocks of the same size.

        Raises:
            ValueError: `level`, the probability that it holds that value, is not between 0 and 1.
        """
        shown = self.of(measure)
        widths = intervals.widths(shown.sums, intervals.checked(level))
        value = shown.matrix(row_model, col_model)
        half = shown.stderr(row_model, col_model)
        half *= shown.over_pairs(widths, row_model, col_model).max(0)
        return value - half, value + half

    def null(self, row_model: str, col_model: str, *, measure: str | None = None) -> pd.DataFrame:
        """Standard deviation of `matrix` were rows paired at random; its mean is then 0.

        Of ensembles the mean over pairs of the pairs' deviations: the mean of dependent scores
        varies at most that much.

        Raises:
            ValueError: a measure of which that is not known, as of the biased CKA, which is above
                0 by chance.
        """
        shown = self._permuted(measure)
        return shown.mean_over_pairs(chance.deviation(shown.sums), row_model, col_model)

    def above_chance(
        self,
        row_model: str,
        col_model: str,
        alpha: float = 0.01,
        *,
        measure: str | None = None,
    ) -> pd.DataFrame:
        """Scores that chance does not explain; booleans, False where the score is undefined.

        With probability 1 - alpha no cell of the matrix is called so by chance (Bonferroni).

        Raises:
            ValueError: `alpha` is not between 0 and 1, or as of `null`.
        """
        if not 0 < alpha < 1:
            raise ValueError(f"alpha={alpha} must be between 0 and 1")
        p = self.p_values(row_model, col_model, measure=measure)
        return p <= alpha / max(int(p.notna().to_numpy().sum()), 1)

    def p_values(
        self, row_model: str, col_model: str, *, measure: str | None = None
    ) -> pd.DataFrame:
        """Probability of a score at least this high by chance, cell by cell; see `chance.tail`.

        Of ensembles the mean over pairs of the pairs' fourth roots is taken, as of the deviations.

        Raises:
            ValueError: as of `null`.
        """
        shown = self._permuted(measure)
        deviation = shown.null(row_model, col_model)
        root = shown.mean_over_pairs(chance.fourth_root(shown.sums), row_model, col_model)
        ratio = shown.matrix(row_model, col_model) / deviation
        p: pd.DataFrame = ratio.copy()
        p[:] = chance.tail(ratio.to_numpy(), ((root / deviation) ** 4).to_numpy())
        return p

    def _permuted(self, measure: str | None) -> Self:
        shown = self.of(measure)
        if shown.measure.permuted:
            return shown
        if shown.measure.options.get("unbiased") is False:
            raise ValueError("the null needs unbiased=True: the biased HSIC is above 0 by chance")
        raise ValueError(
            f'how "{shown.measure.name}" is spread by chance is not known; CKA and the distance '
            "correlation have a null"
        )

    def spread(self, row_model: str, col_model: str, *, measure: str | None = None) -> pd.DataFrame:
        """Standard deviation over particle pairs, at least 0; NaN where there is one pair."""
        pairs = self.over_pairs(self.of(measure).values, row_model, col_model)
        values = pairs.std(axis=0, ddof=1) if len(pairs) > 1 else np.full(pairs.shape[1:], np.nan)
        return self._frame(values, row_model, col_model)

    def disagreement(self, row_model: str, col_model: str, first: str, second: str) -> pd.DataFrame:
        """Where two measures disagree: the cells' ranks under `first` less those under `second`.

        Ranks among the cells of `matrix`, from 0 (lowest) to 1 (highest), so that measures of
        different scales compare: -1 to 1, with mean 0. Above 0 the layers are more alike, as
        layers go, to `first` than to `second`. Cells that are undefined under either are NaN.
        """
        one, other = (self.matrix(row_model, col_model, measure=m) for m in (first, second))
        values = rank_difference(one.to_numpy(float), other.to_numpy(float))
        return self._frame(values, row_model, col_model)

    def particles(
        self, row_model: str, col_model: str, *, row: str, col: str, measure: str | None = None
    ) -> pd.DataFrame:
        """Scores of every pair of particles at one cell, particles x particles; not clamped."""
        return self._particle_frame(self.of(measure).values, row_model, col_model, row, col)

    def particles_stderr(
        self, row_model: str, col_model: str, *, row: str, col: str, measure: str | None = None
    ) -> pd.DataFrame:
        """Standard errors of `particles`, at least 0; NaN under 5 blocks."""
        return self._particle_frame(self.of(measure).errors, row_model, col_model, row, col)

    def particles_along(self, row_model: str, col_model: str, *, row: str) -> Array:
        """CKA of every pair of particles at one row, (P, Q, layers of the column's model)."""
        at = self._index.layer(row_model, row)
        along: Array = self._index.blocks(self.values, row_model, col_model)[:, :, at]
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
        """Why a cell is undefined, in a sentence that names the layer at fault; None where not."""
        r, c = self._index.layer(row_model, row), self._index.layer(col_model, col)
        if not np.isnan(self.matrix(row_model, col_model).iat[r, c]):
            return None
        for model, index, label in ((row_model, r, row), (col_model, c, col)):
            reason = self.reasons(model)[index]
            if reason:
                return f"{model} {label}: {reason}"
        return NEVER_TOGETHER

    def to_frame(self) -> pd.DataFrame:
        """Every score once, tidy: model, particle and layer of row and column, and for every
        measure its value and its standard error, "cka" and "stderr", "rsa" and "rsa_stderr", ...
        """
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
        for k, name in enumerate(self.measures):
            shown = self.of(name)
            columns[name] = shown.values[i, j]
            columns[f"{name}_stderr" if k else "stderr"] = shown.errors[i, j]
        return pd.DataFrame(columns)

    def worst_stderr(self) -> float:
        """Largest standard error of any shown cell; NaN while there is none."""
        pairs = itertools.combinations_with_replacement(self.models, 2)
        found = [self._shown_stderr(a, b) for a, b in pairs]
        found = [f[~np.isnan(f)] for f in found]
        return max((float(f.max()) for f in found if f.size), default=float("nan"))

    def _shown_stderr(self, row_model: str, col_model: str) -> Array:
        if self.n_particles(row_model) == self.n_particles(col_model) == 1:
            values = self.over_pairs(self.errors, row_model, col_model)[0]
        else:
            values = self._pooled_stderr[
                self._index.layers_of(row_model), self._index.layers_of(col_model)
            ]
        undefined = np.isnan(self.over_pairs(self.values, row_model, col_model).mean(axis=0))
        return np.where(undefined, np.nan, values)

    @cached_property
    def _index(self) -> RowIndex:
        return RowIndex(self.rows)

    @cached_property
    def values(self) -> Array:
        """Scores of all pairs of rows, (R, R); not to be changed."""
        return self.sums.cka()

    @cached_property
    def errors(self) -> Array:
        """Standard errors of `values`, (R, R); not to be changed."""
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
