"""The sums of all measures of a run, batch by batch."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cka_widget.engine.grams import accelerator
from cka_widget.engine.grams.gram_blocks import Blocks
from cka_widget.engine.grams.stack import GramStack
from cka_widget.engine.measures.measure import Measure
from cka_widget.engine.summing.clusters import Clusters
from cka_widget.engine.summing.neighbours import Neighbours, after_batch
from cka_widget.engine.summing.pooling import Pooling
from cka_widget.engine.summing.products import (
    Products,
    is_plain,
    plain_products,
    products,
    rho_of,
)
from cka_widget.engine.summing.running_sums import Sums
from cka_widget.result.measure_facts import MeasureFacts


class MeasureSums:
    """One measure's sums of all rows and, for ensembles, of the layers' means over particle pairs.

    Attributes:
        measure: what is summed.
        rows: of all pairs of rows.
        pooled: of all pairs of layers; None without ensembles.
        sizes: samples in blocks of each size.
    """

    def __init__(self, measure: Measure, rows: int, pooling: Pooling, device: torch.device) -> None:
        self.measure = measure
        self.rows = Sums(rows, device)
        self.pooled = Sums(pooling.n_groups, device) if pooling.ensembles else None
        self._pooling = pooling
        self._device = device
        self._known: object = None  # the rows' units and energies that sums are made for
        self.sizes: Counter[int] = Counter()
        self._factor = torch.ones(rows, dtype=torch.float64, device=device)

    def copy(self) -> MeasureSums:
        """The same sums in memory of their own."""
        made = copy.copy(self)
        made.measure = copy.copy(self.measure)
        made.sizes = self.sizes.copy()
        made.rows, made.pooled = self.rows.copy(), self.pooled and self.pooled.copy()
        return made

    def facts(self, order: npt.NDArray[np.int64]) -> MeasureFacts:
        """What a result of these rows, -1 of one that was never computed, says of the measure."""
        made, sizes = self.measure, self.sizes
        chances = [(made.chance(m), n) for m, n in sizes.items()]
        known = [(chance, n) for chance, n in chances if chance is not None]
        samples = sum(n for _, n in known)
        fixed = {
            name: tuple(None if row < 0 else numbers[row] for row in order.tolist())
            for name, numbers in made.row_options().items()
        }
        return MeasureFacts(
            name=made.name,
            title=made.title or made.name,
            options=dict(made.options),
            chance=sum(c * n for c, n in known) / samples if samples else None,
            block_size=max(sizes, key=lambda m: sizes[m], default=None)
            if made.block_size_matters
            else None,
            invariances=tuple(sorted(made.invariances)),
            permuted=made.u_centred,
            row_options=fixed,
        )

    def count_in(self, units: list[int], energies: list[float]) -> None:
        """Have the sums count in the units that the stack's rows have now."""
        if (units, energies) == self._known:
            return
        self._known = units, energies
        degree = self.measure.degree
        unit, energy = degree * np.array(units, dtype=np.float64), degree * np.array(energies)
        self.rows.count_in(unit)
        if self.pooled is not None:
            layers, self._factor = self._pooling.scale(unit, energy)
            self.pooled.count_in(layers)

    def clusters(self, numbers: list[int]) -> Clusters | None:
        """Where the batch's blocks share their groups of samples, their cluster by cluster sums."""
        return Clusters(numbers, len(self.rows.d), self._device) if numbers else None

    def add(self, found: Products, clusters: Clusters | None) -> None:
        """Add blocks, or keep them for their clusters."""
        self.sizes[found.size] += found.size * len(found.h)
        h = found.h.to(self._device)
        d = h.diagonal(dim1=-2, dim2=-1)
        if clusters is not None:
            clusters.add(h, d, found.size, found.shapes)
            return
        self._add(h, d, found.size, found.shapes)

    def _add(self, h: Tensor, d: Tensor, n: int, shapes: Tensor | None) -> None:
        self.rows.add(h, d, n, shapes)
        if self.pooled is not None:
            self.pooled.add(*self._pooling.pool(h, d, self._factor), n)

    def add_clusters(self, clusters: Clusters) -> None:
        """Add the clusters of a batch, each as one block."""
        for h, d, weight in clusters.means():
            self._add(h, d, weight, None)
        for total, new in zip(
            (self.rows.chance2, self.rows.chance4), clusters.chance(), strict=True
        ):
            total += new


class Accumulator:
    """The sums of every measure; `update` adds a batch to all of them or to none.

    Attributes:
        each: the measures' sums, in the order that they were asked for.
        neighbours: what the Grams tell of samples that lie side by side.
    """

    def __init__(
        self,
        measures: Sequence[Measure],
        groups: list[int],
        owners: list[int],
        n_groups: int,
        device: torch.device,
    ) -> None:
        """Arguments as of `Pooling`; measures are used from fresh copies."""
        device = accelerator.sums_device(device)
        pooling = Pooling(groups, owners, n_groups, device)
        self.each = tuple(MeasureSums(m.fresh(), len(groups), pooling, device) for m in measures)
        self.neighbours = Neighbours()

    def update(self, stack: GramStack, again: Callable[[set[int]], None]) -> None:
        """Add the blocks of the stack's batch.

        Args:
            stack: filled.
            again: puts rows once more whose Grams had lost their digits, see `Forming.suspects`.
        """
        # Taking bad products away again would leave their rounding, which can be all there is.
        before = self.each
        try:
            while True:
                self.each = tuple(one.copy() for one in before)
                self._add(stack)
                if not stack.formed.suspects:
                    self.neighbours = after_batch(self.neighbours, stack)
                    return
                again(set(stack.formed.suspects))  # each is suspect once a batch at most
        except BaseException:
            self.each = before
            raise

    def _add(self, stack: GramStack) -> None:
        first = stack.first()
        for one in self.each:
            one.count_in(stack.units(), stack.energies())
            one.measure.look(first)
        clusters = [one.clusters(stack.clusters) for one in self.each]
        # Linear CKA takes the Grams as they stand, and leaves nothing of them: it comes last.
        order = sorted(range(len(self.each)), key=lambda k: is_plain(self.each[k].measure))
        for blocks in stack.blocks():
            for k in order[:-1]:
                self.each[k].add(products(self.each[k].measure, blocks), clusters[k])
            last = self.each[order[-1]]
            last.add(self._last(last.measure, blocks, stack), clusters[order[-1]])
        stack.end_check()
        for one, kept in zip(self.each, clusters, strict=True):
            if kept is not None:
                one.add_clusters(kept)

    def _last(self, measure: Measure, blocks: Blocks, stack: GramStack) -> Products:
        """Products of what may use the Grams up, which are checked by them."""
        if not is_plain(measure):
            stack.check(rho_of(blocks.grams))
            return products(measure, blocks)
        found, rho = plain_products(measure, blocks.grams, stack.to_centre())
        if stack.check(rho):
            found, _ = plain_products(measure, blocks.grams, stack.to_centre())
        return found
