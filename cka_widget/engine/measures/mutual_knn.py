"""Mutual nearest neighbours: do two layers agree on which samples are closest to each other?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cka_widget.engine.grams.gram_blocks import Blocks
from cka_widget.engine.measures.measure import Measure


@dataclass
class MutualKNN(Measure):
    """Share of the k nearest neighbours that samples have in common in two layers.

    s = mean over samples i of |N_k(x_i) & N_k(y_i)| / k,

    N_k(x_i) being the k samples of the block that are nearest to x_i in the one layer, N_k(y_i) in
    the other. By chance it is k / (m - 1) in blocks of m samples, so that k and the block size
    belong to the number; `corrected=True` gives (s - k / (m - 1)) / (1 - k / (m - 1)), 0 by chance
    and 1 at most. 1 of features whose neighbours are all the same, between 0 and 1.

    Samples that are equally far share the places that are left, each in equal parts: s is what
    breaking ties at random gives on average, divided by the root of what it gives of each layer
    with itself. Zero vectors have a cosine distance of 1 to all others; where all samples of a
    block are equal the block has no neighbours, and counts as 0.

    Source: Huh et al. (2024), The Platonic Representation Hypothesis, arXiv 2405.07987.

    Args:
        k: number of neighbours, at least 1, below the block size.
        distance: "cosine" or "euclidean".
        corrected: take off what chance gives.

    Raises:
        ValueError: k below 1, or another distance.
    """

    k: int = 5
    distance: str = "cosine"
    corrected: bool = False
    name: str = "mutual_knn"
    title: str = ""

    degree = 0.0
    block_size_matters = True
    max_rho = 30.0

    def __post_init__(self) -> None:
        if not hasattr(self.k, "__index__") or isinstance(self.k, bool) or self.k < 1:
            raise ValueError(f"k={self.k!r} must be a whole number of neighbours, at least 1")
        if self.distance not in ("cosine", "euclidean"):
            raise ValueError(f"distance={self.distance!r} is not one of cosine, euclidean")
        self.title = self.title or f"mutual {self.k}-NN" + ", above chance" * self.corrected
        self.min_samples = max(4, self.k + 2)
        self.needs_raw = self.distance == "cosine"
        kept = {"scale", "rotation"} | ({"translation"} if self.distance == "euclidean" else set())
        self.invariances = frozenset(kept)

    def vectors(self, blocks: Blocks) -> Tensor:
        """How far j is a neighbour of i: 1, 0 or the part of a place, (R, blocks, m, m)."""
        cosine = self.distance == "cosine"
        made = nearest(blocks.cosine_distances if cosine else blocks.distances, self.k)
        if self.corrected:
            made -= made.sum(-1, keepdim=True) / (blocks.size - 1)
            made.diagonal(dim1=-2, dim2=-1).zero_()
        return made

    def norm(self, m: int) -> float:
        """Of a layer with itself then 1: m k, and what remains of it above chance."""
        return m * self.k * (1 - self.k / (m - 1) if self.corrected else 1.0)

    def chance(self, m: int) -> float:
        """K / (m - 1), or 0 where it is taken off."""
        return 0.0 if self.corrected else self.k / (m - 1)

    @property
    def options(self) -> Mapping[str, Any]:
        """Number of neighbours, distance, and whether chance is taken off."""
        return {"k": int(self.k), "distance": self.distance, "corrected": self.corrected}


def nearest(distances: Tensor, k: int) -> Tensor:
    """Which samples are among the k nearest of each, (..., m, m), every row adding up to k.

    Those at the distance of the k-th share the places that nearer ones leave. Rows of zeros where
    no two samples differ.
    """
    far = distances.clone()
    far.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)
    edge = far.topk(k, dim=-1, largest=False).values.amax(-1, keepdim=True)
    nearer = (far < edge).to(far.dtype)
    tied = (far == edge).to(far.dtype)
    left = k - nearer.sum(-1, keepdim=True)
    made = nearer.add_(tied.mul_(left / tied.sum(-1, keepdim=True)))
    total = distances.sum((-2, -1), keepdim=True)  # 0 where all are equal, and NaN stays NaN
    return made.mul_(total != 0).add_(total - total)
