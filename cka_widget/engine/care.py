"""How carefully a row's Gram is formed: decided by its first batch, or by a later one."""

from __future__ import annotations

import math
from dataclasses import dataclass

# rho = |K| / |U(K)|, both without the diagonal, tells how many digits U-centring cancels; of the
# biased estimator |K| / |HKH|.
# Products of float32 Grams lose rho^2 of their 1e-7: above this rho K is centred before them.
CENTRE_GRAM_ABOVE = 4.0
# The Gram's own entries lose rho of their 6e-8: above this rho the features are centred first
# (largest error of a score seen without, at rho 600: 5e-6). TF32's lose rho of 5e-4, less in
# sums over many features: scores of the benchmarks are off by as much with 16 as with 0.
CENTRE_FEATURES_ABOVE = {"highest": 1000.0, "high": 16.0, "medium": 0.0}
# Above so many times that, a Gram of features that were not is formed anew.
FORM_AGAIN = 5.0


@dataclass
class Care:
    """What is fixed for a row.

    Attributes:
        size: mean energy of a sample.
        alpha: K's scale: where `size` would take products out of float32's range.
        sigma: of the RBF kernel.
        tried: a batch came.
        seen: one came that was not all zero.
    """

    size: float | None = None
    alpha: float = 1.0
    sigma: float | None = None
    centre_gram: bool = False
    centre_features: bool = False
    tried: bool = False
    seen: bool = False

    def set_size(self, size: float) -> None:
        """Fix the scale; all zero fixes none yet."""
        self.size = size or None
        self.seen = self.size is not None
        self.alpha = _scale(size or 1.0)

    def formation(self) -> tuple[object, ...]:
        """Equal where a Gram is formed by the same operations."""
        return self.seen, self.alpha, self.sigma, self.centre_features


def _scale(size: float) -> float:
    """1 where products of Grams of that size stay in float32's range, else about 1 / size."""
    if not math.isfinite(size) or 1e-8 < size < 1e8:
        return 1.0
    return max(1e-18, min(1e18, 1 / size))
