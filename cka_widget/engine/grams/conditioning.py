"""How a row's Gram is formed: decided by its first batch, or by a later one."""

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
# Below it by this factor they are centred from the first, where each change of mind is dear.
MARGIN = 2.0

# Reasons that a row has no score.
HARDLY_VARIES = "its output varies by less than the rounding of its numbers"
VARIES_BY_BATCH = "the same output for all samples of a batch"
OUTGREW = (
    "its output holds NaN or infinite values, or grew to more than 1e8 times its size in the first "
    'batch, more than precision="medium" follows on this device: take precision="high"'
)


@dataclass
class RowCondition:
    """What is fixed for a row once its samples have differed.

    Attributes:
        look: the next batch is looked at before its Gram is formed.
        shift: features are multiplied by 2^shift, where their products would leave float32.
        boost: Grams are multiplied by 2^boost, where products of Grams would.
        energy: log2 of a sample's mean energy; None before it is known.
        centre_gram: the Gram is U-centred before products.
        centre_features: the features are centred before the Gram.
        centre_above: the rho above which they are to be.
        broken: features were NaN or infinite.
        constant: sum of the features of a sample, in a batch whose samples did not differ.
        why: why its Grams are zero although its output is not always the same, or None.
    """

    look: bool = True
    shift: int = 0
    boost: int = 0
    energy: float | None = None
    centre_gram: bool = False
    centre_features: bool = False
    centre_above: float = 0.0
    broken: bool = False
    constant: float | None = None
    why: str | None = None

    @property
    def alpha(self) -> float:
        """K's scale."""
        return math.ldexp(1.0, self.boost)

    @property
    def unit(self) -> int:
        """K is the Gram as it is formed times 2^unit."""
        return -(self.boost + 2 * self.shift)

    def formation(self) -> tuple[object, ...]:
        """Equal where a Gram is formed by the same operations."""
        return self.look, self.shift, self.boost, self.centre_features
