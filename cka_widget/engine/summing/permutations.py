"""Fourth moments of the unbiased HSIC over all orders of a block's samples, without permuting.

Of U-centred Grams A and B let T = <A, B_p>, B_p being B with its samples in the order p. T^4 is a
sum over four pairs of samples, and pairs that share samples form a multigraph of four edges. Over
all orders

    E[T^4] = sum_g ways_g A_g B_g / (m (m-1) ... (m - v_g + 1)),

where v_g is the number of vertices of the multigraph g, ways_g how many of the terms form it, and
A_g the sum of its products of A over different samples. Rows of A sum to 0, so that a vertex of one
edge can be taken away, and five such sums are left (Kazi-Aoual et al. 1995 have the third moment).
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.linalg import vecdot, vector_norm

from cka_widget.engine.grams import accelerator, memory
from cka_widget.engine.grams.accelerator import double

# Blocks of so many samples are looked at whole; on accelerators, where launches cost more, larger.
_WHOLE, _WHOLE_QUEUED = 64, 256
# Blocks whose directions tell for all of a batch.
_FEW = 2
# Of sums that are 1 at most.
_LITTLE = 0.02
# Rows that stand for those of a larger block.
_ROWS = 20
# Numbers of Grams looked at at a time on accelerators: bounds the memory beside them.
_TOGETHER_QUEUED = 1 << 24

# Vertices, ways, and A_g in the sums of `shapes`, of every multigraph that does not vanish.
_MULTIGRAPHS = (
    (2, 8, (1, 0, 0, 0, 0)),
    (3, 64, (1, 0, 0, 0, 0)),
    (3, 48, (0, 1, 0, 0, 0)),
    (3, 96, (0, 0, 1, 0, 0)),
    (4, 64, (1, 0, 0, 0, 0)),
    (4, 96, (1, -1, 0, 0, 0)),
    (4, 96, (1, 0, -1, 0, 0)),
    (4, 192, (0, 1, 1, 0, 0)),
    (4, 768, (0, 0, 1, 0, 0)),
    (4, 12, (0, 0, 0, 0, 1)),
    (4, 48, (0, 0, 0, 1, 0)),
    (5, 144, (1, -1, 0, 0, 0)),
    (5, 384, (1, -1, -1, 0, 0)),
    (5, 192, (1, -1, -4, 0, 0)),
    (5, 48, (0, 2, 2, 0, -1)),
    (5, 192, (0, 1, 3, -1, 0)),
    (5, 1152, (0, 0, 1, 0, 0)),
    (6, 1152, (1, -1, -2, 0, 0)),
    (6, 384, (1, -2, -7, 1, 0)),
    (6, 48, (2, -4, -4, 0, 1)),
    (6, 48, (1, -5, -12, 2, 1)),
    (7, 96, (6, -12, -32, 4, 1)),
    (8, 144, (6, -12, -32, 4, 1)),
)


def fourth_cumulants(shapes: Tensor, m: int) -> Tensor:
    """Fourth cumulants of HSIC(K, L) over all orders, in HSIC(K, K)^2 HSIC(L, L)^2.

    The variance is 2 HSIC(K, K) HSIC(L, L) / (m (m-3)), so that E[h^4] - 3 Var^2 is left.

    Args:
        shapes: of the rows' Grams, (blocks, R, 5), see `shapes`.
        m: samples of a block.

    Returns:
        (blocks, R, R) float64.
    """
    weights = _weights(m, accelerator.sums_device(shapes.device))
    return (shapes @ weights @ shapes.mT).sub_(12 / (m * (m - 3)) ** 2)


@functools.lru_cache(64)  # making a tensor of numbers waits for all that a device has queued
def _weights(m: int, device: torch.device) -> Tensor:
    """What every product of two sums, one of A and one of B, counts in E[T^4], (5, 5)."""
    graphs = [(ways / math.perm(m, v), sums) for v, ways, sums in _MULTIGRAPHS if v <= m]
    table = [[sum(c * s[i] * s[j] for c, s in graphs) for j in range(5)] for i in range(5)]
    return torch.tensor(table, dtype=torch.float64, device=device)


def shapes(grams: Tensor, shift: Tensor, square: Tensor, energy: Tensor) -> Tensor:
    """How unevenly U-centred Grams A are made, whatever their size: five sums, with |A| = 1.

    Sums over different samples of A_ij^4; A_ij^2 A_ik^2; A_ij^2 A_ik A_jk; A_ij A_jk A_kl A_li;
    and A_ij^2 A_kl^2. The third and fourth tell of directions, and cost more than the rest: the
    first blocks tell for all. Of large blocks the rows of the samples of most energy are taken
    as they are, and some of the others stand for all of them.

    Args:
        grams: K without its diagonal (R, blocks, m, m); may be U-centred in place.
        shift: what U-centring takes from every row and column, (R, blocks, m).
        square: |A|^2, (R, blocks).
        energy: K_ii of the samples, their mean taken off, to choose some by, (R, blocks, m).

    Returns:
        (blocks, R, 5) in float64.
    """
    m = grams.shape[-1]
    queued = accelerator.accelerated(grams.device)
    whole = m <= (_WHOLE_QUEUED if queued else _WHOLE)
    numbers = grams.shape[1] * m * (m if whole else _ROWS)
    together = max(1, (_TOGETHER_QUEUED if queued else memory.numbers_together()) // numbers)
    found = []
    parts = (torch.split(x, together) for x in (grams, shift, square, energy))
    with accelerator.uncast(grams.device), accelerator.matmul(grams.device, "highest"):
        for k, u, q, e in zip(*parts, strict=True):
            # With |A| = 1, products stay within float32 whatever the features' size.
            scale = torch.where(q > 0, 1 / q, 0.0).to(k.device, k.dtype)[..., None, None]
            a, order = (_centre_(k, u), None) if whole else _some_rows(k, u, e)
            quadruple, stars, bent, cycles = _sums(a, order, scale)
            apart = (q > 0).double() - 4 * stars - 2 * quadruple
            bent = _like_first(bent, stars, 0.0, least=-1.0)
            cycles = _like_first(cycles, apart, 1.0, least=0.0)
            found.append(torch.stack([quadruple, stars, bent, cycles, apart], -1))
    return torch.cat(found).transpose(0, 1)


def _like_first(first: Tensor, bound: Tensor, unknown: float, *, least: float) -> Tensor:
    """A sum of all blocks (R, blocks) from the first ones': as large a part of its bound in all.

    The third sum is within the second; the fourth is the fifth of features of one dimension, and
    less of wider ones. Where the first blocks' bounds say little, the part is `unknown`.
    """
    few = first.shape[1]
    known = bound[:, :few].sum(1, keepdim=True)
    part = torch.where(known > _LITTLE, first.sum(1, keepdim=True) / known, unknown)
    return torch.cat([first, part.clamp(least, 1.0) * bound[:, few:]], 1)


def _centre_(grams: Tensor, shift: Tensor) -> Tensor:
    grams.sub_(shift[..., None]).sub_(shift[..., None, :])
    grams.diagonal(dim1=-2, dim2=-1).zero_()
    return grams


def _some_rows(grams: Tensor, shift: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
    """Some rows of A, (R, blocks, rows, m), and whose they are, (R, blocks, rows).

    Half of them are those of most energy, which stand for themselves. The others lie at fixed
    places, and stand for all that are left; one that is among the former already is zero.
    """
    m = grams.shape[-1]
    places = _places(m, grams.device)
    most = energy.topk(_ROWS // 2).indices
    order = torch.cat([most, places.expand(*most.shape[:-1], -1)], -1)
    first = torch.arange(0, grams[..., 0].numel(), m, device=grams.device)
    at = (order + first.view(*order.shape[:-1], 1)).flatten()
    rows = grams.reshape(-1, m).index_select(0, at).view(*order.shape, m)
    rows.sub_(shift.gather(-1, order)[..., None]).sub_(shift[..., None, :])
    rows.scatter_(-1, order[..., None], 0.0)
    again = (most[..., None] == places).any(-2)[..., None]
    rows[..., _ROWS // 2 :, :].masked_fill_(again, 0.0)
    return rows, order


def _sums(a: Tensor, order: Tensor | None, scale: Tensor) -> tuple[Tensor, ...]:
    """The first four sums of `shapes`: two (R, blocks), two of the first blocks alone.

    Args:
        a: rows of A, (R, blocks, rows, m).
        order: whose rows they are; None of all.
        scale: 1 / |A|^2, (R, blocks, 1, 1).
    """
    squares = (a * a).mul_(scale)
    energy = double(squares.sum(-1)).square()
    edges, rows = squares[:, :_FEW], a[:, :_FEW]
    paths = (rows @ rows.mT).mul_(scale[:, :_FEW])  # sum_j A_ij A_jk
    if order is None:
        quadruple = double(vector_norm(squares.flatten(-2), dim=-1)).square()
        stars = energy.sum(-1)
        triangles = double(vecdot(edges.flatten(-2), paths.flatten(-2)))
        closed = double(vector_norm(paths.flatten(-2), dim=-1)).square()
        cycles = closed - 2 * stars[:, :_FEW] + quadruple[:, :_FEW]
        return quadruple, stars - quadruple, triangles, cycles
    paths = double(paths)
    turns = paths.square() - double(edges @ edges.mT)  # without those that come back
    one, two = _counts(a.shape[-1], accelerator.sums_device(a.device)).unbind()
    ends = order[:, :_FEW, None, :].expand(*paths.shape)
    triangles = double(edges.gather(-1, ends)) * paths @ two @ two
    cycles = turns @ two @ two - turns.diagonal(dim1=-2, dim2=-1) @ two.square()
    # Their |A|^2 is not quite the one they stand for.
    part = energy.sqrt() @ one
    part = torch.where(part > 0, 1 / part, 0.0)
    fourth = double(vector_norm(squares, dim=-1)).square()
    quadruple, stars = (x @ one * part for x in (fourth, energy - fourth))
    few = part[:, :_FEW].square()
    return quadruple, stars, triangles * few, cycles * few


@functools.lru_cache(64)
def _places(m: int, device: torch.device) -> Tensor:
    """Fixed places among m samples, which the golden ratio spreads."""
    rest = _ROWS - _ROWS // 2
    places = [int((k + k * 0.618034 % 1) * m / rest) for k in range(rest)]
    return torch.tensor(places, device=device)


@functools.lru_cache(64)
def _counts(m: int, device: torch.device) -> Tensor:
    """How many samples each row stands for, and how many so that pairs of rows do, (2, rows)."""
    most, rest = _ROWS // 2, _ROWS - _ROWS // 2
    counts = (m / rest, math.sqrt(math.perm(m, 2) / math.perm(rest, 2)))
    table = [[1.0] * most + [count] * rest for count in counts]
    return torch.tensor(table, dtype=torch.float64, device=device)
