"""What a result says of a measure; a plain record, saved with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cka_widget.result.sums import HsicSums


@dataclass(frozen=True)
class MeasureFacts:
    """A measure as it was used.

    Attributes:
        name: by which its scores are asked.
        title: what is written at a colour bar.
        options: what it was made with.
        chance: its value for unrelated features at these blocks; None where it is not known.
        block_size: samples of most of its blocks, where its value hangs on them, else None.
        invariances: what leaves it as it is, of "scale", "rotation" and "translation".
        permuted: is its spread known where rows are paired at random? Then `null` can tell.
        row_options: by name what was fixed for every row by its first batch, None where it was not.
    """

    name: str = "cka"
    title: str = "CKA"
    options: Mapping[str, Any] = field(default_factory=dict)
    chance: float | None = 0.0
    block_size: int | None = None
    invariances: tuple[str, ...] = ("rotation", "scale", "translation")
    permuted: bool = True
    row_options: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)

    def merged(self, other: MeasureFacts, weights: tuple[float, float]) -> MeasureFacts:
        """Of both over more data, weighted by their samples."""
        if self.chance is None or other.chance is None or not sum(weights):
            return self
        mean = (self.chance * weights[0] + other.chance * weights[1]) / sum(weights)
        return replace(self, chance=mean)


@dataclass(frozen=True)
class Measured:
    """One measure's sums.

    Attributes:
        facts: of the measure.
        sums: of all pairs of rows.
        pooled: of the layers' means over particle pairs; None without ensembles.
    """

    facts: MeasureFacts
    sums: HsicSums
    pooled: HsicSums | None = None
