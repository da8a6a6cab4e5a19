"""HSIC of all pairs of Grams, as one matrix product."""

from __future__ import annotations

import torch
from torch import Tensor

from cka_widget.engine import accelerator, gram, symmetric
from cka_widget.engine.accelerator import double
from cka_widget.engine.permutations import shapes

# Numbers that could be U-centred in the time that it takes to begin.
_OF_A_CALL = 1 << 15


def hsics(
    grams: Tensor, centred: list[int], *, unbiased: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """HSIC of all pairs of rows by either estimator; see `unbiased_hsics` and `biased_hsics`."""
    if unbiased:
        return unbiased_hsics(grams, centred)
    return *biased_hsics(grams), None


def unbiased_hsics(grams: Tensor, centred: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """<U(K), U(L)> / (m (m-3)) of all pairs of rows; Song et al. (2012), eq. 5.

    U-centring is a projection: <U(K), U(L)> = <K, U(L)>, and K's row sums are enough. That cancels
    digits where a Gram's mean is large against its spread; such rows are U-centred first.

    Args:
        grams: K (R, blocks, m, m), may be changed.
        centred: rows to U-centre.

    Returns:
        (blocks, R, R) float64; every row's rho (R,), see `care`; the Grams' `shapes`.
    """
    rows, _, m, _ = grams.shape
    removed = torch.zeros(rows, dtype=torch.float64, device=accelerator.sums_device(grams.device))
    energy = grams.diagonal(dim1=-2, dim2=-1).clone()
    numbers = grams[0].numel()
    # One call for all changes nothing, and costs less where these are many or Grams are small.
    if len(centred) * (numbers + _OF_A_CALL) > rows * numbers:
        lost, shift = gram.u_centre_(grams)
        removed += double(lost.sum(-1))
        energy -= 2 * shift
    else:
        for row in centred:
            lost, shift = gram.u_centre_(grams[row])
            removed[row] = lost.sum()
            energy[row] -= 2 * shift
    sums = gram.off_diagonal_sums_(grams)
    product = _products(grams)
    exact = double(sums).transpose(0, 1)
    cancelled = torch.bmm(exact, gram.u_shift(exact, m).mT).mul_(2)
    removed += cancelled.diagonal(dim1=-2, dim2=-1).sum(0)
    product -= cancelled
    del cancelled  # at many rows the largest that stands here
    product = (product + product.mT).div_(2)  # to the last digit
    shift = gram.u_shift(sums, m)
    square = product.diagonal(dim1=-2, dim2=-1).mT
    made = shapes(grams, shift, square, energy - 2 * shift)
    return product / (m * (m - 3)), _rho(product, removed), made


def biased_hsics(grams: Tensor) -> tuple[Tensor, Tensor]:
    """<HKH, HLH> / (m-1)^2 of all pairs of rows; Gretton et al. (2005).

    Args:
        grams: K (R, blocks, m, m), centred in place.

    Returns:
        (blocks, R, R) float64, and every row's rho (R,), see `care`.
    """
    removed = double(gram.centre_(grams).sum(-1))
    product = _products(grams)
    return product / (grams.shape[-1] - 1) ** 2, _rho(product, removed)


def _products(grams: Tensor) -> Tensor:
    """Inner products of all pairs of Grams, float64 (blocks, R, R)."""
    flat = grams.flatten(2).transpose(0, 1)
    product = flat.new_empty(*flat.shape[:2], flat.shape[1])
    with accelerator.uncast(flat.device), accelerator.matmul(flat.device, "highest"):
        symmetric.way(product, flat)(product, flat)
    return double(product)


def _rho(product: Tensor, removed: Tensor) -> Tensor:
    """|K| / |U(K)|, or |K| / |HKH|, of every row (R,); 0 where K is, NaN where it is not finite.

    Args:
        product: inner products of centred Grams (blocks, R, R).
        removed: |K|^2 less its centred part, summed over the blocks, (R,).
    """
    left = product.diagonal(dim1=-2, dim2=-1).sum(0).clamp(min=0)
    rho = (1 + removed / left).sqrt() + (left - left)
    return torch.where((left == 0) & (removed == 0), 0.0, rho)
