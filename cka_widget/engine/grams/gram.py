"""Gram matrices and their centring, in place on stacks (..., m, m)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cka_widget.engine.grams import accelerator, self_product

# Bytes of features centred at a time: stays in the processor's cache, bounds the extra memory. On
# an accelerator launches cost more than traffic: a whole layer at a time there, mostly.
_CHUNK_BYTES, _ACCELERATOR_BYTES = 1 << 20, 1 << 30


# For each segment of a batch: its samples, and the (blocks, m, m) that hold its Grams.
Slots = list[tuple[slice, Tensor]]


def linear_gram_(slots: Slots, x: Tensor, alpha: float = 1.0) -> None:
    """K = alpha X X' for every block.

    Args:
        slots: written.
        x: features (n, d), of the slots' dtype, or `accelerator.exact`; or (blocks, m, d) of all
            blocks of one slot.
        alpha: scale of the whole matrix.
    """
    for samples, out in slots:
        part = _in_blocks(x, samples, out)
        if accelerator.accelerated(out.device):
            accelerator.product_(out, part, alpha=alpha)
            continue
        self_product.way(out, part)(out, part)
        if alpha != 1.0:
            out.mul_(alpha)


def centred_gram_(
    slots: Slots,
    x: Tensor,
    alpha: float = 1.0,
    *,
    shift: int = 0,
    rounded: bool = False,
    rows: int = 1,
) -> None:
    """K = alpha (X - mean)(X - mean)' for every block, a slab of features at a time.

    Subtracting one vector from all samples of a block changes neither its HSIC nor its distances;
    it keeps float32 Grams exact when the features' mean is large against their spread. Features
    that vary by less than the rounding of their mean are constant: K is exactly zero then, and NaN
    where the mean is too large to tell.

    Args:
        slots: written.
        x: features (n, d), or (blocks, m, d) of all blocks of one slot, of any floating dtype;
            centred in float32 or better.
        alpha: scale of the whole matrix.
        shift: features are multiplied by 2^shift first.
        rounded: multiply the centred features as bfloat16.
        rows: how many particles the slots' blocks belong to, in order; each is constant or not.
    """
    parts = [
        _centred_blocks_(out, _in_blocks(x, samples, out), alpha, shift, rounded, rows)
        for samples, out in slots
    ]
    energy, spread = parts[0]
    for more, wider in parts[1:]:
        energy, spread = energy + more, spread + wider
    # A mean that is not finite gives NaN. On an accelerator launches are what a small layer costs.
    bound = (energy if alpha == 1.0 else energy * alpha) * (4 * torch.finfo(energy.dtype).eps) ** 2
    factor = (energy - energy).add_(spread > bound)
    for _, out in slots:
        out.view(rows, -1).mul_(factor[:, None])


def _in_blocks(x: Tensor, samples: slice, out: Tensor) -> Tensor:
    """The features that belong to a slot, (blocks, m, d)."""
    if x.dim() == 3:
        return x
    blocks, m, _ = out.shape
    return (x if blocks * m == len(x) else x[samples]).view(blocks, m, x.shape[1])


def _centred_blocks_(
    out: Tensor, x: Tensor, alpha: float, shift: int, rounded: bool, rows: int
) -> tuple[Tensor, Tensor]:
    """Returns the mean's energy, sum_j mean_j^2, and alpha times the variance, summed (rows,)."""
    blocks, m, d = x.shape
    dtype = torch.promote_types(x.dtype, torch.float32)
    budget = _ACCELERATOR_BYTES if accelerator.accelerated(x.device) else _CHUNK_BYTES
    width = max(256, budget // (blocks * m * dtype.itemsize))
    energy: Tensor | None = None
    # One scratch for all slabs: fresh pages cost more than the subtraction.
    kept = torch.bfloat16 if rounded else dtype
    scratch = torch.empty(blocks * m * min(width, d), dtype=kept, device=x.device)
    for start in range(0, d, width):
        slab = scaled(x[..., start : start + width], shift).to(dtype)
        mean = slab.mean(1, keepdim=True)
        found = mean.square().view(rows, -1).sum(1)
        energy = found if energy is None else energy.add_(found)
        centred = torch.sub(slab, mean, out=scratch[: slab.numel()].view_as(slab))
        centred = centred if rounded else centred.to(out.dtype)
        accelerator.product_(out, centred, beta=float(start > 0), alpha=alpha)
    if energy is None:  # of a `reduce=` that keeps nothing
        out.zero_()
        energy = torch.zeros(rows, dtype=dtype, device=x.device)
    spread = out.diagonal(dim1=-2, dim2=-1).view(rows, -1, m).sum((1, 2))
    return energy, spread / max(m - 1, 1)


# Features up to 2^40 and from 2^-40 are multiplied as they are: sums of their squares are float32.
_PLAIN_FEATURES = 40
# So are Grams whose mean diagonal is up to 2^26.
_PLAIN_GRAMS = 26
PLAIN_SIZE = 2.0**_PLAIN_GRAMS


def shift_of(x: Tensor) -> Tensor:
    """Exponent of the power of two that brings the largest feature near 1; 0 where none need be."""
    if not x.numel():  # of a `reduce=` that keeps nothing
        return torch.zeros((), device=x.device)
    low, high = torch.aminmax(x)
    peak = torch.maximum(-low, high)
    return _levelling(peak.to(torch.promote_types(x.dtype, torch.float32)), _PLAIN_FEATURES)


def boost_of(size: Tensor) -> Tensor:
    """Exponent of the power of four that brings a Gram's `magnitude` near 1; 0 where none need.

    Even, so that distances, its roots, count in powers of two.
    """
    exponent = _levelling(size, _PLAIN_GRAMS)
    return exponent - exponent.remainder(2)


def _levelling(size: Tensor, plain: int) -> Tensor:
    """0 also where all is zero, or not finite."""
    exponent = size.log2().floor()
    far = exponent.isfinite() & (exponent.abs() > plain)
    most = 1022 if size.dtype is torch.float64 else 126  # the powers of two that are numbers
    return torch.where(far, -exponent, 0.0).clamp(-most, most)


def scaled(x: Tensor, shift: int | Tensor) -> Tensor:
    """2^shift x, in x's precision; x itself where shift is the number 0."""
    if isinstance(shift, Tensor):
        return x * shift.exp2()
    return x * math.ldexp(1.0, shift) if shift else x


def all_equal(slots: Slots, x: Tensor) -> Tensor:
    """Are the samples of every block equal, to the last bit?"""
    parts = [_in_blocks(x, samples, out) for samples, out in slots]
    return torch.stack([(part == part[:, :1]).all() for part in parts]).all()


def magnitude(slots: Slots) -> Tensor:
    """Mean of the diagonals."""
    diagonals = [out.diagonal(dim1=-2, dim2=-1) for _, out in slots]
    return torch.stack([d.sum() for d in diagonals]).sum() / sum(d.numel() for d in diagonals)


def cancellation(slots: Slots) -> Tensor:
    """Rho = |K| / |U(K)| without the diagonal; NaN where that is not finite, inf where U(K)=0."""
    parts = []
    for _, out in slots:
        gram = out.to(accelerator.sums_device(out.device)).to(torch.float64, copy=True)
        sums = off_diagonal_sums_(gram)
        square = gram.square().sum()
        lost = 2 * (sums * u_shift(sums, out.shape[-1])).sum()
        parts.append(torch.stack([square, square - lost]))
    kept, left = torch.stack(parts).sum(0).unbind()
    rho = (kept / left.clamp(min=0)).sqrt()
    return torch.where(kept == 0, 1.0, rho)


def off_diagonal_sums_(gram: Tensor) -> Tensor:
    """Zero the diagonals of (..., m, m); returns the row sums (..., m)."""
    gram.diagonal(dim1=-2, dim2=-1).zero_()
    return gram.sum(-1)


def u_shift(sums: Tensor, m: int) -> Tensor:
    """What U-centring takes from the row and the column of every sample, from its row sums."""
    return sums / (m - 2) - sums.sum(-1, keepdim=True) / (2 * (m - 1) * (m - 2))


def squared_distances_(gram: Tensor) -> None:
    """|x_i - x_j|^2 = K_ii + K_jj - 2 K_ij, in place on (..., m, m)."""
    diagonal = gram.diagonal(dim1=-2, dim2=-1).clone()
    gram.mul_(-2).add_(diagonal[..., None]).add_(diagonal[..., None, :]).clamp_(min=0)
    gram.diagonal(dim1=-2, dim2=-1).zero_()


def median_distance(squared: Tensor) -> Tensor:
    """Median of |x_i - x_j| over i < j, from squared distances (..., m, m)."""
    m = squared.shape[-1]
    i, j = torch.triu_indices(m, m, 1, device=squared.device)
    return squared[..., i, j].flatten().median().sqrt()


def rbf_(squared: Tensor, sigma: float | Tensor) -> None:
    """K_ij = exp(-|x_i - x_j|^2 / (2 sigma^2)), in place on squared distances."""
    least = torch.finfo(squared.dtype).tiny  # so that equal samples give 1, not 0 / 0
    width = 2 * sigma * sigma
    squared.div_(-(width.clamp(min=least) if isinstance(width, Tensor) else max(width, least)))
    squared.exp_()


def u_centre_(gram: Tensor) -> tuple[Tensor, Tensor]:
    """U-centring (Szekely and Rizzo 2014), in place on (..., m, m), m >= 3.

    U(K)_ij = K_ij - sum_j K_ij / (m-2) - sum_i K_ij / (m-2) + sum K / ((m-1)(m-2)) off the
    diagonal, 0 on it, all sums without the diagonal. Then <U(K), U(L)> / (m (m-3)) is the
    unbiased HSIC of Song et al. (2012, eq. 5).

    Returns:
        |K|^2 - |U(K)|^2 without K's diagonal, (...), and what `u_shift` gives, (..., m).
    """
    sums = off_diagonal_sums_(gram)
    shift = u_shift(sums, gram.shape[-1])
    gram.sub_(shift[..., None]).sub_(shift[..., None, :])
    gram.diagonal(dim1=-2, dim2=-1).zero_()
    return 2 * (sums * shift).sum(-1), shift


def centre_(gram: Tensor) -> Tensor:
    """Double centring HKH, H = I - 11'/m, in place on (..., m, m).

    Returns:
        |K|^2 - |HKH|^2, (...).
    """
    means = gram.mean(-1)
    shift = means - means.mean(-1, keepdim=True) / 2
    gram.sub_(shift[..., None]).sub_(shift[..., None, :])
    return 2 * gram.shape[-1] * (means * shift).sum(-1)
