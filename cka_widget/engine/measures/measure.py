"""What a similarity measure is to the engine: a way to turn the Gram of a block into a vector."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from cka_widget.engine.grams.gram_blocks import Blocks


class Measure:
    """Similarity of two layers' features as a cosine between vectors made of their Grams.

    Of every block b of n_b samples `vectors` makes a vector v of each row, and

        similarity(i, j) = h_ij / sqrt(h_ii h_jj),   h_ij = sum_b n_b <v_i,b, v_j,b> / norm(n_b).

    So measures share Grams, sums, error bars, merging and files. Subclass it, say what the class
    attributes ask for, and hand an instance to `compare(..., measures=["cka", MyMeasure()])`.

    Attributes:
        name: short and in lower case, by which results are asked; `name=` gives another.
        title: what is written at a colour bar.
        min_samples: fewest samples of a block.
        block_size_matters: do blocks of another size mean something else? Such results are merged
            only where their blocks have one size.
        invariances: what leaves the measure as it is, of "scale", "rotation" and "translation".
        degree: v grows as the Gram to this power; 0 where the features' scale does not matter.
        max_rho: features whose Gram K has |K| / |U(K)| above this are centred before it is formed:
            distances lose as many digits as that ratio has, centred Grams few. 0 centres all.
        needs_raw: are the features needed as they are, before a block's mean is taken off?
        needs_labels: are class labels needed?
        u_centred: does `vectors` give U-centred matrices (R, blocks, m, m)? Only of those is it
            known how they are spread where rows are paired at random.
    """

    name: str = ""
    title: str = ""
    min_samples: int = 4
    block_size_matters: bool = False
    invariances: frozenset[str] = frozenset({"scale", "rotation", "translation"})
    degree: float = 1.0
    max_rho: float = 1000.0
    needs_raw: bool = False
    needs_labels: bool = False
    u_centred: bool = False

    def vectors(self, blocks: Blocks) -> Tensor:
        """The vector of every row and block, (R, blocks, ...), in memory of its own."""
        raise NotImplementedError(f"{type(self).__name__} must say what its vectors are")

    def norm(self, m: int) -> float:
        """What inner products of vectors of blocks of m samples are divided by."""
        return 1.0

    def chance(self, m: int) -> float | None:
        """The value for unrelated features in blocks of m samples; None where it is not known."""
        return None

    def used(self, labels: Tensor) -> int:
        """How many samples of blocks count, from labels (blocks, m) as of `Blocks`."""
        return labels.numel()

    @property
    def options(self) -> Mapping[str, Any]:
        """What the measure was made with: numbers, names, True, False or None, by name."""
        return {}

    def row_options(self) -> Mapping[str, Sequence[float | None]]:
        """By name what `look` has fixed for every row, None where it was not yet."""
        return {}

    def look(self, blocks: Blocks) -> None:
        """Called with blocks of every batch before `vectors`, for what the first batch fixes."""

    def fresh(self) -> Measure:
        """A copy that has seen nothing, for one run."""
        return copy.copy(self)
