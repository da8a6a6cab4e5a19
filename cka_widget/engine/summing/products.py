"""Inner products of all pairs of rows: how a measure's vectors, or plain Grams, become scores."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from cka_widget.engine.grams import accelerator, gram, memory, self_product
from cka_widget.engine.grams.accelerator import double
from cka_widget.engine.grams.gram_blocks import Blocks
from cka_widget.engine.measures.cka import CKA
from cka_widget.engine.measures.measure import Measure
from cka_widget.engine.summing.permutations import shapes

# Numbers that could be U-centred in the time that it takes to begin.
_OF_A_CALL = 1 << 15


class Products(NamedTuple):
    """Of some blocks of one size.

    Attributes:
        h: inner products of all pairs of rows over `Measure.norm`, (blocks, R, R) float64.
        shapes: `permutations.shapes` of U-centred vectors, else None.
        size: samples of a block.
    """

    h: Tensor
    shapes: Tensor | None
    size: int


def products(measure: Measure, blocks: Blocks) -> Products:
    """Inner products of the measure's vectors."""
    made = _vectors(measure, blocks)
    product = _symmetric(_products(made.flatten(2)))
    found = None
    if measure.u_centred:
        square = product.diagonal(dim1=-2, dim2=-1).mT
        energy = vector_norm(
            made, dim=-1
        ).square()  # of large blocks the samples of most energy are looked at
        found = shapes(made, torch.zeros_like(energy), square, energy)
    return Products(product / measure.norm(blocks.size), found, blocks.size)


def _vectors(measure: Measure, blocks: Blocks) -> Tensor:
    """Those of all rows; where they are large so many rows at a time that what is made on the way
    is small beside them.
    """
    rows = len(blocks.grams)
    some = max(1, memory.vectors_together() // max(1, blocks.grams[0].numel()))
    if some >= rows:
        return measure.vectors(blocks)
    made: Tensor | None = None
    for start in range(0, rows, some):
        part = measure.vectors(blocks.part(start, min(start + some, rows)))
        if made is None:
            made = part.new_empty(rows, *part.shape[1:])
        made[start : start + len(part)] = part
    assert made is not None
    return made


def is_plain(measure: Measure) -> bool:
    """Is it made of Grams as they stand, without a copy of them?"""
    return type(measure) is CKA and measure.kernel == "linear"


def plain_products(cka: Measure, grams: Tensor, centred: list[int]) -> tuple[Products, Tensor]:
    """The same of linear CKA, in place on the Grams, and every row's rho (R,), see `conditioning`.

    Args:
        cka: `is_plain`.
        grams: K (R, blocks, m, m); their diagonals are lost, and rows may be centred.
        centred: rows to U-centre.
    """
    m = grams.shape[-1]
    if cka.u_centred:
        product, rho, found = _unbiased(grams, centred)
    else:
        removed = double(gram.centre_(grams).sum(-1))
        product, found = _symmetric(_products(grams.flatten(2))), None
        rho = _rho(product, removed)
    return Products(product / cka.norm(m), found, m), rho


def rho_of(grams: Tensor) -> Tensor:
    """Rho (R,) of Grams (R, blocks, m, m), which are left as they are; see `conditioning`."""
    found = []
    for row in grams:
        kept = double(row)
        kept = kept.clone() if kept is row else kept
        sums = gram.off_diagonal_sums_(kept)
        removed = 2 * (sums * gram.u_shift(sums, grams.shape[-1])).sum()
        found.append(torch.stack([vector_norm(kept).square() - removed, removed]))
    return _ratio(*torch.stack(found, 1))


def _unbiased(grams: Tensor, centred: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """<U(K), U(L)> of all pairs, rho, and the shapes of U(K).

    U-centring is a projection: <U(K), U(L)> = <K, U(L)>, and K's row sums are enough. That cancels
    digits where a Gram's mean is large against its spread; such rows are U-centred first.
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
    product = _products(grams.flatten(2))
    exact = double(sums).transpose(0, 1)
    cancelled = torch.bmm(exact, gram.u_shift(exact, m).mT).mul_(2)
    removed += cancelled.diagonal(dim1=-2, dim2=-1).sum(0)
    product -= cancelled
    del cancelled  # at many rows the largest that stands here
    product = _symmetric(product)
    shift = gram.u_shift(sums, m)
    square = product.diagonal(dim1=-2, dim2=-1).mT
    return product, _rho(product, removed), shapes(grams, shift, square, energy - 2 * shift)


def _products(vectors: Tensor) -> Tensor:
    """Inner products of all pairs of rows of (R, blocks, numbers), float64 (blocks, R, R)."""
    flat = vectors.transpose(0, 1)
    product = flat.new_empty(*flat.shape[:2], flat.shape[1])
    with accelerator.uncast(flat.device), accelerator.matmul(flat.device, "highest"):
        self_product.way(product, flat)(product, flat)
    return double(product)


def _symmetric(product: Tensor) -> Tensor:
    """To the last digit."""
    return (product + product.mT).div_(2)


def _rho(product: Tensor, removed: Tensor) -> Tensor:
    """Every row's rho from its inner products (blocks, R, R), and |K|^2 less the centred part."""
    return _ratio(product.diagonal(dim1=-2, dim2=-1).sum(0), removed)


def _ratio(left: Tensor, removed: Tensor) -> Tensor:
    """|K| / |U(K)|, or |K| / |HKH|, of every row (R,); 0 where K is, NaN where it is not finite.

    Args:
        left: |U(K)|^2, summed over the blocks, (R,).
        removed: what centring took from |K|^2, (R,).
    """
    left = left.clamp(min=0)
    rho = (1 + removed / left).sqrt() + (left - left)
    return torch.where((left == 0) & (removed == 0), 0.0, rho)
