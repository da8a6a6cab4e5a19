"""What is computed of features."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """Kernel and estimator.

    `bandwidth` is sigma as a fraction of the median distance between samples of a row's first
    batch (Kornblith et al. 2019 use 0.2, 0.4 and 0.8); only the RBF kernel has one.
    """

    name: str = "linear"
    unbiased: bool = True
    bandwidth: float = 0.4

    def __post_init__(self) -> None:
        if self.name not in ("linear", "rbf"):
            raise ValueError(f"kernel={self.name!r} is not known; choose 'linear' or 'rbf'")
        if not self.bandwidth > 0:
            raise ValueError(f"bandwidth={self.bandwidth!r} must be above 0")

    @property
    def min_samples(self) -> int:
        """Fewest samples of a block: the unbiased HSIC divides by m (m - 3)."""
        return 4 if self.unbiased else 2
