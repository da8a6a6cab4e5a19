"""The numbers behind a cell as a script asks for them: by names, in lists and data frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cka_widget.result.cell.cell_scores import cell_scores, particle_map, particle_means

if TYPE_CHECKING:
    import pandas as pd

    from cka_widget.result.keys import Cell, LayerKey
    from cka_widget.result.particle_stats import OddOne
    from cka_widget.result.scores import Scores


def odd_particles(scores: Scores, cell: Cell) -> list[OddOne]:
    """The particles that stand out at one cell, see `CKAResult.odd_particles`."""
    return cell_scores(scores, cell).odd


def map_frame(scores: Scores, cell: Cell) -> pd.DataFrame:
    """Where the particles of one cell lie on a plane, see `CKAResult.particle_map`."""
    import pandas as pd

    data = cell_scores(scores, cell)
    plane = particle_map(scores, data)
    if plane is None:
        raise ValueError(
            "a map needs at least three particles, and this cell has "
            f"{len(data.scores) if cell.row == cell.col else sum(data.scores.shape)}"
        )
    points = [
        (key.model, key.layer, particle)
        for key in ([cell.row] if cell.row == cell.col else cell)
        for particle in range(scores.n_particles(key.model))
    ]
    index = pd.MultiIndex.from_tuples(points, names=["model", "layer", "particle"])
    frame = pd.DataFrame(plane.coords, index, ["x", "y"])
    frame.attrs["share"] = plane.share
    return frame


def profile_frame(scores: Scores, held: LayerKey, moving: str) -> pd.DataFrame:
    """Scores of one layer against all layers of a model, see `CKAResult.profile`."""
    import pandas as pd

    at = scores.layers(held.model).index(held.layer)
    tables = {"score": scores.matrix, "stderr": scores.stderr, "spread": scores.spread}
    frame = pd.DataFrame({name: of(held.model, moving).iloc[at] for name, of in tables.items()})
    if scores.n_particles(moving) > 1:
        for particle, mean in enumerate(particle_means(scores, held, moving)):
            frame[f"#{particle}"] = mean
    return frame
