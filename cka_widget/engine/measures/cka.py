"""Centered kernel alignment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cka_widget.engine.grams import accelerator
from cka_widget.engine.grams.accelerator import double
from cka_widget.engine.grams.gram import centre_, rbf_, squared_distances_, u_centre_
from cka_widget.engine.grams.gram_blocks import Blocks
from cka_widget.engine.measures.measure import Measure


@dataclass
class CKA(Measure):
    """Centered kernel alignment of all pairs of layers.

    CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)),   HSIC(K, L) = <U(K), U(L)> / (m (m - 3)),

    K_ij = x_i . x_j, or exp(-|x_i - x_j|^2 / (2 sigma^2)) with "rbf"; U-centring makes the HSIC
    unbiased (Song et al. 2012, JMLR 13, eq. 5). Sums over blocks come before the ratio (Nguyen,
    Raghu and Kornblith 2021, arXiv 2010.15327, eq. 3). `unbiased=False` takes <HKH, HLH> / (m-1)^2
    (Gretton et al. 2005), which overestimates similarity in small blocks.

    1 of features equal up to rotation, scale and shift, about 0 of unrelated ones, negative by
    chance, not clamped.

    Args:
        kernel: "linear" or "rbf".
        unbiased: which estimator.
        bandwidth: sigma of the RBF kernel as a fraction of the median distance between samples of
            a row's first batch; Kornblith et al. (2019) use 0.2, 0.4 and 0.8.

    Raises:
        ValueError: an unknown kernel, or a bandwidth that is not above 0.
    """

    kernel: str = "linear"
    unbiased: bool = True
    bandwidth: float = 0.4
    name: str = "cka"
    title: str = ""
    sigma: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    _known: bool = field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kernel not in ("linear", "rbf"):
            raise ValueError(f"kernel={self.kernel!r} is not known; choose 'linear' or 'rbf'")
        if not self.bandwidth > 0:
            raise ValueError(f"bandwidth={self.bandwidth!r} must be above 0")
        rbf = self.kernel == "rbf"
        self.title = self.title or ("CKA, RBF kernel" if rbf else "CKA")
        self.min_samples = 4 if self.unbiased else 2
        self.block_size_matters = not self.unbiased
        self.max_rho = 0.0 if rbf else 1000.0
        self.u_centred = self.unbiased
        self.degree = 0.0 if rbf else 1.0

    def look(self, blocks: Blocks) -> None:
        """Fix the bandwidth of rows whose samples have not differed so far."""
        if self.kernel != "rbf":
            return
        before = self.sigma
        if self._known:
            return
        squared = blocks.grams.clone()
        squared_distances_(squared)
        i, j = torch.triu_indices(blocks.size, blocks.size, 1, device=squared.device)
        # Where most samples coincide the median is 0: the root mean square serves then.
        median = squared[..., i, j].flatten(1).median(-1).values
        typical = torch.where(median > 0, median, squared.flatten(1).mean(-1))
        typical = double(typical.sqrt()) * (blocks.unit / 2).exp2()
        sigma = self.bandwidth * typical.nan_to_num(0.0)
        self.sigma = sigma if before is None else torch.where(before == 0, sigma, before)
        # Where reading it would wait for a device, a result that is asked for tells.
        self._known = not accelerator.accelerated(blocks.grams.device) and bool(self.sigma.all())

    def row_options(self) -> Mapping[str, Sequence[float | None]]:
        """Sigma of the RBF kernel, in the features' own unit."""
        if self.sigma is None:
            return {}
        found = self.sigma.tolist()
        self._known = all(found)
        return {"sigma": [value or None for value in found]}

    def vectors(self, blocks: Blocks) -> Tensor:
        """U(K), or HKH of the biased estimator, (R, blocks, m, m)."""
        made = blocks.grams.clone()
        if self.kernel == "rbf":
            assert self.sigma is not None, "look comes first"
            squared_distances_(made)
            sigma = self.sigma[blocks.rows] * (-blocks.unit / 2).exp2()
            sigma = sigma.to(made.device, made.dtype)[:, None, None, None]
            rbf_(made, sigma)
            made.mul_(sigma != 0)  # no two samples differ yet
        if self.unbiased:
            u_centre_(made)
        else:
            centre_(made)
        return made

    def norm(self, m: int) -> float:
        """M (m - 3), or (m - 1)^2 of the biased estimator."""
        return m * (m - 3) if self.unbiased else (m - 1) ** 2

    def chance(self, m: int) -> float | None:
        """0 of the unbiased estimator; that of the biased one hangs on the features."""
        return 0.0 if self.unbiased else None

    @property
    def options(self) -> Mapping[str, Any]:
        """Kernel and estimator, and of the RBF kernel its bandwidth."""
        found = {"kernel": self.kernel, "unbiased": self.unbiased}
        return found | ({"bandwidth": self.bandwidth} if self.kernel == "rbf" else {})
