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

from cka_widget.engine import accelerator
from cka_widget.engine.accelerator import double

# Samples of a block whose Gram is looked at whole; on accelerators launches cost more than numbers.
_WHOLE, _WHOLE_QUEUED = 64, 256
# So many represent those of a larger block.
_SAMPLES = 48
# Numbers of Grams looked at at a time: bounds the memory beside them.
_TOGETHER, _TOGETHER_QUEUED = 1 << 20, 1 << 24

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
    return shapes @ weights @ shapes.mT - 12 / (m * (m - 3)) ** 2


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
    first block's stand for all. Of large blocks the samples of most energy are taken as they are,
    and some of the others stand for all of them.

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
    numbers = grams.shape[1] * (m if whole else _SAMPLES) ** 2
    together = max(1, (_TOGETHER_QUEUED if queued else _TOGETHER) // numbers)
    found = []
    parts = (torch.split(x, together) for x in (grams, shift, square, energy))
    with accelerator.uncast(grams.device), accelerator.matmul(grams.device, "highest"):
        for k, u, q, e in zip(*parts, strict=True):
            # With |A| = 1, products stay within float32 whatever the features' size.
            scale = torch.where(q > 0, 1 / q, 0.0).to(k.device, k.dtype)[..., None, None]
            if whole:
                *local, bent, cycles = _sums_of_all(_centre_(k, u), scale)
            else:
                *local, bent, cycles = _sums_of_some(_chosen(k, u, e), scale, m)
            known = q[:, :1] > 0  # else as of one dimension, of which cycles have most
            cycles = torch.where(known, cycles, 1.0).expand_as(q)
            apart = (q > 0).double() - 4 * local[1] - 2 * local[0]
            found.append(torch.stack([*local, bent.expand_as(q), cycles, apart], -1))
    return torch.cat(found).transpose(0, 1)


def _centre_(grams: Tensor, shift: Tensor) -> Tensor:
    grams.sub_(shift[..., None]).sub_(shift[..., None, :])
    grams.diagonal(dim1=-2, dim2=-1).zero_()
    return grams


def _sums_of_all(a: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    """The first four sums of `shapes`: two (R, blocks), two (R, 1) of the first block."""
    squares = (a * a).mul_(scale)
    quadruple = double(vector_norm(squares.flatten(-2), dim=-1)).square()
    stars = double(squares.sum(-1)).square().sum(-1)
    first = a[:, :1]
    edges, paths = squares[:, :1].flatten(-2), first.matmul(first).mul_(scale[:, :1]).flatten(-2)
    bent, closed = double(vecdot(edges, paths)), double(vecdot(paths, paths))
    return quadruple, stars - quadruple, bent, closed - 2 * stars[:, :1] + quadruple[:, :1]


def _sums_of_some(a: Tensor, scale: Tensor, m: int) -> tuple[Tensor, ...]:
    """The same of blocks of m samples, from A of those of `_chosen`."""
    exact = _counts(m, accelerator.sums_device(a.device))
    (_, counts), (n, n2, pair) = _choice(m, a.device, a.dtype), exact.unbind(-1)
    squares = (a * a).mul_(scale)
    edges, fourth = double(squares @ counts), double(squares.square() @ counts)
    energy = edges[..., 0].square()
    first = a[:, :1]
    paths = (first * counts[:, 0]).matmul(first).mul_(scale[:, :1])
    bent, closed = (double((x * paths) @ counts)[..., 0] @ n for x in (squares[:, :1], paths))
    cycles = closed - 2 * (energy[:, :1] @ n2) + fourth[:, :1, :, 1] @ n2
    stars = energy @ n - fourth[..., 1] @ n
    # Their |A|^2 is not quite the one they stand for.
    part = (edges[..., 2] @ pair).square()
    found = (fourth[..., 0] @ n, stars, bent, cycles)
    return tuple(
        torch.where(p > 0, x / p, 0.0)
        for x, p in zip(found, (part, part, part[:, :1], part[:, :1]), strict=True)
    )


def _chosen(grams: Tensor, shift: Tensor, energy: Tensor) -> Tensor:
    """A of some samples: half of them those of most energy, which stand for themselves.

    The others lie at fixed places, and stand for all that are left; one that is among the former
    already is zero.
    """
    m = grams.shape[-1]
    places, _ = _choice(m, grams.device, grams.dtype)
    most = energy.topk(_SAMPLES // 2).indices
    order = torch.cat([most, places.expand(*most.shape[:-1], -1)], -1)
    at = (order[..., :, None] * m + order[..., None, :]).flatten(-2)
    some = grams.flatten(-2).gather(-1, at).view(*order.shape, _SAMPLES)
    _centre_(some, shift.gather(-1, order))
    again = (most[..., None] == places).any(-2)[..., None]
    some[..., _SAMPLES // 2 :, :].masked_fill_(again, 0)
    some[..., _SAMPLES // 2 :].masked_fill_(again.mT, 0)
    return some


@functools.lru_cache(64)
def _choice(m: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The fixed places, which the golden ratio spreads; `_counts` as Grams are kept."""
    rest = _SAMPLES - _SAMPLES // 2
    places = [int((k + k * 0.618034 % 1) * m / rest) for k in range(rest)]
    counts = _counts(m, accelerator.sums_device(device)).to(device, dtype)
    return torch.tensor(places, device=device), counts


@functools.lru_cache(64)
def _counts(m: int, device: torch.device) -> Tensor:
    """How many samples each stands for, (samples, 3).

    So that sets of four different ones stand for as many as there are; its square; and so that
    pairs do.
    """
    first, rest = _SAMPLES // 2, _SAMPLES - _SAMPLES // 2
    four, two = ((math.perm(m, k) / math.perm(rest, k)) ** (1 / k) for k in (4, 2))
    table = [[1.0] * 3] * first + [[four, four**2, two]] * rest
    return torch.tensor(table, dtype=torch.float64, device=device)
