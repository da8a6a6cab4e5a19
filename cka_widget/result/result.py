"""What a run gives: its scores, and what is done with them. numpy and pandas only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cka_widget.result import combine, storage
from cka_widget.result.keys import Cell, LayerKey
from cka_widget.result.scores import Scores

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Self

    from cka_widget.result.particle_stats import OddOne


@dataclass(frozen=True, repr=False)
class CKAResult(Scores):
    """What `compare` gives: `Scores`, that can be drawn, merged and saved."""

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

    def odd_particles(
        self, row_model: str, col_model: str, *, row: str, col: str, measure: str | None = None
    ) -> list[OddOne]:
        """The particles that agree with all others clearly less than these do, at one cell.

        By the rule of the drill-down, see `particle_stats.judge` and docs/particles.md: where all
        particles are of one kind, one is named in at most 5% of the cells.

        Returns:
            One `(axis, particle, score, others)` each, the furthest first: "row" or "col" for
            the model it is of ("row" where both are the same), its number from 0, the mean score
            of its pairs, and of the pairs without it. Empty where none stands out, as among two.
        """
        from cka_widget.result.cell import cell_frames

        return cell_frames.odd_particles(
            self.of(measure), self._cell(row_model, col_model, row, col)
        )

    def particle_map(
        self, row_model: str, col_model: str, *, row: str, col: str, measure: str | None = None
    ) -> pd.DataFrame:
        """Where the particles of one cell lie on a plane: near each other where they score high.

        Classical multidimensional scaling (Torgerson 1952) of the angles arccos(score), in radians
        (Williams et al. 2021), between all particles of both sides; see `mds`.

        Returns:
            Coordinates "x" and "y" in radians (particles, 2), by model, layer and particle, the
            row's first; of one model at one layer each particle once. NaN for a particle with an
            undefined score. `attrs["share"]`: the share of the squared distances that the plane
            holds, 0 to 1.

        Raises:
            ValueError: fewer than three particles.
        """
        from cka_widget.result.cell import cell_frames

        return cell_frames.map_frame(self.of(measure), self._cell(row_model, col_model, row, col))

    def profile(
        self,
        row_model: str,
        col_model: str,
        *,
        row: str | None = None,
        col: str | None = None,
        measure: str | None = None,
    ) -> pd.DataFrame:
        """Scores along one row of `matrix` (`row=`), or along one of its columns (`col=`).

        Returns:
            By the layers of the other model: "score", its "stderr" and its "spread" over particle
            pairs, as in `matrix`, `stderr` and `spread`; of an ensemble also "#0", "#1", ...: the
            mean score of each of its particles with its partners, itself left out.

        Raises:
            ValueError: neither `row` nor `col`, or both.
        """
        from cka_widget.result.cell import cell_frames

        if (row is None) == (col is None):
            raise ValueError("a profile runs along one row or one column: give row= or col=")
        held, moving = (row_model, col_model) if col is None else (col_model, row_model)
        return cell_frames.profile_frame(
            self.of(measure), self._key(held, col if row is None else row), moving
        )

    def _key(self, model: str, layer: Any) -> LayerKey:
        """A layer by its label, also where an alias was given."""
        return LayerKey(model, self.layers(model)[self._index.layer(model, layer)])

    def _cell(self, row_model: str, col_model: str, row: str, col: str) -> Cell:
        return Cell(self._key(row_model, row), self._key(col_model, col))

    def plot(self, row_model: str | None = None, col_model: str | None = None, **how: Any) -> Any:
        """Draw one matrix with matplotlib; returns the axes. Options: see `plotting.draw`."""
        from cka_widget.result.export.plotting import plot

        return plot(self, row_model, col_model, **how)

    def to_html(self, path: Any = None, **how: Any) -> str:
        """The interactive page in one file, without kernel or network: see `page.to_html`."""
        from cka_widget.result.export.page import to_html

        return to_html(self, path, **how)

    def merge(self, other: Self) -> Self:
        """The same layers over more data; a new result, see `combine.merge`.

        Args:
            other: of the same models, layers and measures, over other samples.

        Raises:
            ValueError: the layers, particles, measures or batch weights differ.
        """
        return combine.merge(self, other)

    def save(self, path: Any) -> None:
        """Write one safetensors file, sums included; `cka_widget.load` reads it.

        Args:
            path: of the file, which is replaced where it exists.

        Raises:
            FileNotFoundError: the directory does not exist.
            OSError: the file cannot be written.
        """
        storage.save(self, path)


def load(path: Any) -> CKAResult:
    """Read what `CKAResult.save` wrote; torch need not be installed.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, damaged, or written by a newer version; the message says which.
    """
    return CKAResult(**storage.read(path))
