"""CKA inside classes: do two layers see the same differences between samples of one class?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cka_widget.engine.grams.gram_blocks import Blocks
from cka_widget.engine.measures.measure import Measure

_LEAST = 4  # samples of a class in a block, as the unbiased HSIC needs


@dataclass
class WithinClassCKA(Measure):
    """Linear CKA of samples of the same class, each class of a block being a block of its own.

    h = sum over classes c of n_c <U(K_c), U(L_c)> / (n_c (n_c - 3)),

    K_c and L_c being the Grams of the block's n_c samples of class c, and U the U-centring: it is
    the minibatch CKA of batches that are sorted by class and cut between classes. Two layers that
    merely both tell the classes apart have a CKA far above 0 and a within-class CKA of about 0.
    1 of features equal up to rotation, scale and a shift for each class; not clamped.

    Classes are the labels that batches carry. A class of which a block holds fewer than 4 samples
    does not count there: blocks of 32 leave 61, 20 and 0.4% of the samples at 10, 20 and 100
    balanced classes, `hsic_batch_size=None` leaves more.

    Source: the estimator of Song et al. (2012), JMLR 13, eq. 5, within classes; block averages of
    Nguyen, Raghu and Kornblith (2021), arXiv 2010.15327, eq. 3.
    """

    name: str = "within_class_cka"
    title: str = "CKA within classes"

    needs_labels = True

    def vectors(self, blocks: Blocks) -> Tensor:
        """U(K_c) / sqrt(n_c - 3) of every class, 0 between classes, (R, blocks, m, m)."""
        labels = blocks.labels
        if labels is None:
            raise ValueError("the batches carry no class labels")
        same = (labels[:, :, None] == labels[:, None, :]) & (labels >= 0)[:, :, None]
        count = same.sum(-1)  # of a sample's class in its block, (blocks, m)
        same &= (count >= _LEAST)[:, :, None]
        same.diagonal(dim1=-2, dim2=-1).fill_(False)
        mask = same.to(blocks.grams.dtype)
        # As numbers that a block's own size bounds: n_c below 4 is masked.
        n = count.clamp(min=_LEAST).to(blocks.grams.dtype)
        made = blocks.grams * mask
        sums = made.sum(-1)
        total = (mask @ sums[..., None]).squeeze(-1) + sums  # of the class, its diagonal left out
        shift = sums / (n - 2) - total / (2 * (n - 1) * (n - 2))
        made.sub_(shift[..., None]).sub_(shift[..., None, :]).mul_(mask)
        return made.mul_(torch.rsqrt(n - 3)[:, :, None])

    def norm(self, m: int) -> float:
        """m, since blocks count by their samples."""
        return m

    def chance(self, m: int) -> float:
        """0: the estimator is unbiased."""
        return 0.0

    def used(self, labels: Tensor) -> int:
        """Samples whose class has 4 in their block."""
        same = (labels[:, :, None] == labels[:, None, :]).sum(-1)
        return int(((same >= _LEAST) & (labels >= 0)).sum())
