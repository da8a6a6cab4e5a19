"""Representational similarity analysis: do two layers call the same pairs of samples unlike?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cka_widget.engine.grams.gram_blocks import Blocks
from cka_widget.engine.measures.measure import Measure
from cka_widget.engine.measures.ranks import ranks

# What leaves distances as they are, up to a factor.
_INVARIANCES = {
    "euclidean": ("scale", "rotation", "translation"),
    "correlation": ("scale",),
    "cosine": ("scale", "rotation"),
}
_COMPARISONS = ("pearson", "spearman")


@dataclass
class RSA(Measure):
    """Correlation of the dissimilarities of all pairs of samples in two layers.

    r = sum_{i<j} (D_ij - D_mean)(E_ij - E_mean) / sqrt(... D ... D ... E ... E),

    D and E the distances between the samples of a block in one and the other layer, less their
    mean over the block's m (m - 1) / 2 pairs; sums over blocks before the ratio. With
    `compare="spearman"` the distances are replaced by their ranks within the block, equal ones by
    their mean rank, so that any growing function of them says the same.

    Unlike CKA it is not corrected for the samples that pairs have in common, and sorts pairs within
    blocks alone. 1 of features equal up to rotation, scale and shift with "euclidean"; with
    "cosine" a shift counts, with "correlation" so does a rotation, and a shift that differs
    between features. About 0 for unrelated features, between -1 and 1.

    Zero vectors (and with "correlation" vectors whose features are all equal) have no angle: their
    distance to all others is 1, the middle of its range.

    Source: Kriegeskorte, Mur and Bandettini (2008), Frontiers in Systems Neuroscience 2.

    Args:
        distance: "euclidean", "correlation" (1 - Pearson's r over features) or "cosine".
        compare: "pearson" or "spearman".

    Raises:
        ValueError: another distance or comparison.
    """

    distance: str = "euclidean"
    compare: str = "pearson"
    name: str = "rsa"
    title: str = ""

    max_rho = 30.0

    def __post_init__(self) -> None:
        if self.distance not in _INVARIANCES:
            raise ValueError(f"distance={self.distance!r} is not one of {', '.join(_INVARIANCES)}")
        if self.compare not in _COMPARISONS:
            raise ValueError(f"compare={self.compare!r} is not one of {', '.join(_COMPARISONS)}")
        self.title = self.title or f"RSA, {self.distance} distances, {self.compare.capitalize()}"
        self.invariances = frozenset(_INVARIANCES[self.distance])
        self.needs_raw = self.distance != "euclidean"
        self.degree = 0.5 if (self.distance, self.compare) == ("euclidean", "pearson") else 0.0

    def vectors(self, blocks: Blocks) -> Tensor:
        """Dissimilarities less their mean, (R, blocks, m, m) with a zero diagonal; of ranks
        (R, blocks, m (m - 1) / 2).
        """
        if self.distance == "euclidean":
            found = blocks.distances
        elif self.distance == "cosine":
            found = blocks.cosine_distances
        else:
            found = blocks.correlation_distances
        m = blocks.size
        if self.compare == "spearman":
            i, j = torch.triu_indices(m, m, 1, device=found.device)
            ranked = ranks(found[..., i, j])
            return ranked.sub_(ranked.mean(-1, keepdim=True))
        mean = found.sum((-2, -1), keepdim=True).div_(m * (m - 1))
        made = found - mean
        made.diagonal(dim1=-2, dim2=-1).zero_()
        return made

    def norm(self, m: int) -> float:
        """The number of pairs that `vectors` holds."""
        return m * (m - 1) / (2 if self.compare == "spearman" else 1)

    def chance(self, m: int) -> float:
        """0: distances of samples that are paired at random are not correlated."""
        return 0.0

    @property
    def options(self) -> Mapping[str, Any]:
        """Distance and comparison."""
        return {"distance": self.distance, "compare": self.compare}
