"""Everything behind one cell of the heatmap, as arrays: what the drill-down draws."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cka_widget.result.cell.mds import angular_distance, classical_mds
from cka_widget.result.chance import caveat
from cka_widget.result.keys import Cell, LayerKey
from cka_widget.result.particle_stats import OddOne, Verdict, judge, pair_mask


@dataclass(frozen=True)
class Profile:
    """How the score runs along one model's depth, the other side being held at its layer."""

    model: str
    layers: list[str]
    scores: np.ndarray
    """(particles of `model`, layers): each particle's mean over its partners."""
    mean: np.ndarray
    spread: np.ndarray
    """Standard deviation over particle pairs; zeros for single models."""
    error: np.ndarray
    here: int
    """Index of the selected layer."""


@dataclass(frozen=True)
class Chance:
    """What pairing the samples at random would give: 0 ± `deviation`."""

    above: bool
    deviation: float
    caveat: str = ""
    """What a score above chance may come down to."""


@dataclass(frozen=True)
class CellScores:
    """One cell: value, error bar, and the particles that made it."""

    cell: Cell
    value: float
    error: float
    reason: str | None
    scores: np.ndarray
    """(row particles, column particles)."""
    errors: np.ndarray
    pairs: np.ndarray
    """Mask of the entries that are averaged in `value`."""
    within: tuple[np.ndarray | None, np.ndarray | None]
    """Scores inside the row's and inside the column's ensemble; None of one particle or of both."""
    verdict: Verdict
    """Who stands out, by `scores`: what all charts and sentences of the cell follow."""
    chance: Chance | None

    @property
    def one_ensemble(self) -> bool:
        """Both sides are particles of the same model."""
        return self.cell.row.model == self.cell.col.model

    @property
    def single(self) -> bool:
        """No ensemble on either side: there is nothing to compare between particles."""
        return self.scores.size == 1

    @property
    def odd(self) -> list[OddOne]:
        """The particles that stand out, the furthest first."""
        return self.verdict.odd

    @property
    def pair_scores(self) -> np.ndarray:
        """The scores that are averaged, flat, undefined ones left out."""
        scores: np.ndarray = self.scores[self.pairs & np.isfinite(self.scores)]
        return scores

    def is_odd(self, row: int, col: int) -> bool:
        """Whether the pair involves a particle that stands out."""
        return any(
            odd.particle == (row if odd.axis == "row" else col)
            or (self.one_ensemble and odd.particle in (row, col))
            for odd in self.odd
        )

    def odd_and_others(self) -> tuple[float, float]:
        """Mean score of the pairs with a particle that stands out, and of the pairs without."""
        rows, cols = self.scores.shape
        odd = np.array([[self.is_odd(i, j) for j in range(cols)] for i in range(rows)])
        shown = self.pairs & np.isfinite(self.scores)
        return float(self.scores[shown & odd].mean()), float(self.scores[shown & ~odd].mean())

    def name(self, axis: str, particle: int) -> str:
        """As in "deep CNN #3"."""
        return f"{(self.cell.row if axis == 'row' else self.cell.col).model} #{particle}"


class Tables:
    """What a result says of a pair of models, layers x layers, each table made when first asked.

    They serve all cells of the pair: one is worked out in little less time than all.
    """

    def __init__(self, result: Any, row_model: str, col_model: str) -> None:
        self.result, self.names = result, (row_model, col_model)
        self.rows, self.cols = (
            {layer: at for at, layer in enumerate(result.layers(name))} for name in self.names
        )

    @cached_property
    def of_measures(self) -> list[Tables]:
        """The same of every measure of the result, first of the one that is shown."""
        others = (self.result.of(name) for name in self.result.measures[1:])
        return [self, *(Tables(other, *self.names) for other in others)]

    def serve(self, result: Any, cell: Cell) -> bool:
        """Whether these are the tables of that cell."""
        return self.result is result and self.names == (cell.row.model, cell.col.model)

    def at(self, cell: Cell) -> tuple[int, int]:
        """Row and column of the cell."""
        return self.rows[cell.row.layer], self.cols[cell.col.layer]

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean over particle pairs."""
        return _numbers(self.result.matrix(*self.names))

    @cached_property
    def error(self) -> np.ndarray:
        """Standard error of the mean."""
        return _numbers(self.result.stderr(*self.names))

    @cached_property
    def spread(self) -> np.ndarray:
        """Standard deviation over particle pairs; zeros where there is one pair."""
        spread: np.ndarray = np.nan_to_num(_numbers(self.result.spread(*self.names)))
        return spread

    @cached_property
    def null(self) -> np.ndarray | None:
        """Standard deviation by chance; None where the estimator is above 0 by chance."""
        try:
            return _numbers(self.result.null(*self.names))
        except ValueError:
            return None

    @cached_property
    def above_chance(self) -> np.ndarray:
        """Whether chance does not explain the score."""
        return _numbers(self.result.above_chance(*self.names), bool)


def cell_scores(result: Any, cell: Cell, tables: Tables | None = None) -> CellScores:
    """Collect what `result` (a CKAResult) knows of `cell`; `tables` spare making them anew.

    Raises:
        KeyError: the result has no such layer.
    """
    row, col = cell
    names = (row.model, col.model)
    tables = tables or Tables(result, *names)
    at = tables.at(cell)
    scores = _particles(result, row, col)
    errors = _errors(result, row, col)
    same = row.model == col.model
    value = float(tables.mean[at])
    # In one ensemble at two layers, (i, j) and (j, i) are different pairs, (i, i) is none.
    many = len(scores) > 1
    if same and many and row.layer != col.layer:
        pairs = ~np.eye(len(scores), dtype=bool)
    else:
        pairs = pair_mask(scores.shape, same and many)
    inner = (None, None) if same else (_inside(result, row), _inside(result, col))
    judged, doubts = ((x + x.T) / 2 if same else x for x in (scores, errors))
    return CellScores(
        cell,
        value,
        float(tables.error[at]),
        None if np.isfinite(value) else result.why(*names, row.layer, col.layer),
        scores,
        errors,
        pairs,
        inner,
        judge(judged, same=same, stderr=doubts, within=inner),
        _chance(tables, at) if row != col or many else None,
    )


def _chance(tables: Tables, at: tuple[int, int]) -> Chance | None:
    """Whether the score is above chance; None where that cannot be told."""
    if tables.null is None or not np.isfinite(tables.null[at]):
        return None
    above = bool(tables.above_chance[at])
    return Chance(above, float(tables.null[at]), caveat(tables.result) if above else "")


def _numbers(frame: Any, kind: type = float) -> np.ndarray:
    values: np.ndarray = frame.to_numpy(kind)
    return values


def _particles(result: Any, row: LayerKey, col: LayerKey) -> np.ndarray:
    return _numbers(result.particles(row.model, col.model, row=row.layer, col=col.layer))


def _inside(result: Any, key: LayerKey) -> np.ndarray | None:
    return _particles(result, key, key) if result.n_particles(key.model) > 1 else None


def _errors(result: Any, row: LayerKey, col: LayerKey) -> np.ndarray:
    return _numbers(result.particles_stderr(row.model, col.model, row=row.layer, col=col.layer))


def profiles(result: Any, cell: Cell, tables: Tables | None = None) -> tuple[Profile, Profile]:
    """The score along the columns at the selected row, and along the rows at the column."""
    names = (cell.row.model, cell.col.model)
    tables = tables or Tables(result, *names)
    row, col = tables.at(cell)
    of_cols = particle_means(result, cell.row, names[1])
    of_rows = particle_means(result, cell.col, names[0])
    along_col = (tables.mean[row], tables.spread[row], tables.error[row])
    along_row = (tables.mean[:, col], tables.spread[:, col], tables.error[:, col])
    return (
        Profile(names[1], list(tables.cols), of_cols, *along_col, col),
        Profile(names[0], list(tables.rows), of_rows, *along_row, row),
    )


def particle_means(result: Any, held: LayerKey, moving: str) -> np.ndarray:
    """Mean of each particle of the moving model over its partners, (particles, layers)."""
    scores = np.array(result.particles_along(held.model, moving, row=held.layer))
    if held.model == moving and len(scores) > 1:
        scores[np.arange(len(scores)), np.arange(len(scores))] = np.nan
    return _mean(scores)


def _mean(block: np.ndarray) -> np.ndarray:
    """Mean along the first axis over the finite entries; NaN where there are none."""
    finite = np.isfinite(block)
    number = finite.sum(0)
    total = np.where(finite, block, 0).sum(0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


@dataclass(frozen=True)
class Within:
    """Pair scores inside one ensemble at the cell's layer."""

    key: LayerKey
    scores: np.ndarray
    odd: np.ndarray
    """Which of them involve a particle that stands out in the cell."""


def within(data: CellScores) -> list[Within]:
    """Pairs inside each ensemble, to hold beside the pairs between two ensembles."""
    found = []
    for axis, key, block in zip(("row", "col"), data.cell, data.within, strict=True):
        if block is not None:
            rows, cols = np.nonzero(pair_mask(block.shape, True) & np.isfinite(block))
            apart = [odd.particle for odd in data.odd if odd.axis == axis]
            odd = np.isin(rows, apart) | np.isin(cols, apart)
            found.append(Within(key, block[rows, cols], odd))
    return found


@dataclass(frozen=True)
class ParticleMap:
    """Planar coordinates of the row's particles, then of the column's."""

    coords: np.ndarray
    split: int
    """Number of the row's particles; with one ensemble at one layer there are no others."""
    share: float
    """Share of the squared distances that the plane holds, 0 to 1."""


def particle_map(result: Any, data: CellScores) -> ParticleMap | None:
    """Classical MDS on arccos(CKA); None with fewer than three particles."""
    row, col = data.cell
    if row == col:
        similarity = data.scores.copy()
    else:
        similarity = np.block(
            [
                [_particles(result, row, row), data.scores],
                [data.scores.T, _particles(result, col, col)],
            ]
        )
    split = len(data.scores)
    if len(similarity) < 3 or data.single:
        return None
    np.fill_diagonal(similarity, np.where(np.isfinite(np.diag(similarity)), 1.0, np.nan))
    coords, share = classical_mds(angular_distance(similarity))
    return ParticleMap(coords, split, share)
