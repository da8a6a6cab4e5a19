"""Distance correlation: do samples that lie far apart in one layer lie far apart in the other?"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cka_widget.engine.grams.gram import u_centre_
from cka_widget.engine.grams.gram_blocks import Blocks
from cka_widget.engine.measures.measure import Measure


@dataclass
class DistanceCorrelation(Measure):
    """Bias-corrected distance correlation, the squared statistic.

    R* = dCov*(X, Y) / sqrt(dCov*(X, X) dCov*(Y, Y)),   dCov*(X, Y) = <U(D), U(E)> / (m (m - 3)),

    where D_ij = |x_i - x_j| and E_ij = |y_i - y_j| are Euclidean distances within a block and U is
    U-centring; sums over blocks before the ratio. It estimates the square of the distance
    correlation, as `dcor.u_distance_correlation_sqr` does: its limit is 0 only of independent
    features, whatever their dependence, and 1 of features equal up to rotation, scale and shift.
    About 0 for unrelated features, negative by chance, not clamped.

    Source: Szekely and Rizzo (2013), Journal of Multivariate Analysis 117, with the U-centring of
    their (2014), Annals of Statistics 42.
    """

    name: str = "distance_correlation"
    title: str = "distance correlation, squared"

    degree = 0.5
    max_rho = 30.0
    u_centred = True

    def vectors(self, blocks: Blocks) -> Tensor:
        """U(D), (R, blocks, m, m)."""
        made = blocks.distances.clone()
        u_centre_(made)
        return made

    def norm(self, m: int) -> float:
        """M (m - 3)."""
        return m * (m - 3)

    def chance(self, m: int) -> float:
        """0: the estimator is unbiased."""
        return 0.0
