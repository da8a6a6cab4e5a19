"""Groups of samples that belong together, as the frames of a clip; blocks without two of one.

Of G groups block k holds the k-th sample of each that has so many. These blocks share their groups,
so they are one *cluster*: error bars and chance count clusters, which have no group in common.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from cka_widget.engine.errors import CompareError, summary
from cka_widget.engine.grams.blocks import Segment, split

# One value a sample: of all of them, in the loader's order, or what gives those of a batch.
Groups = Tensor | Sequence[Hashable] | Callable[[Any], Any]

_REMEDY = "larger batches, or ones that mix more groups"


class Arrangement(NamedTuple):
    """How a batch's samples stand in blocks.

    Attributes:
        order: the samples that are used, block by block.
        segments: the blocks, those of one size together.
        clusters: number of every block's cluster, in the order of the blocks.
        left_out: samples that had too few others for a block.
    """

    order: list[int]
    segments: list[Segment]
    clusters: list[int]
    left_out: int


def arrange(
    values: Sequence[Hashable], hsic_batch_size: int | None, min_samples: int
) -> Arrangement:
    """Blocks of at most `hsic_batch_size` samples, no two of one group.

    Args:
        values: group of every sample; None and NaN are groups of their own.
        hsic_batch_size: groups of a cluster at most, a few more where one would be too small.
        min_samples: blocks of fewer are left out.
    """
    members: dict[Any, list[int]] = {}
    for sample, value in enumerate(values):
        members.setdefault(value if _known(value) else (_known, sample), []).append(sample)
    groups, blocks = list(members.values()), []
    sets = (b for s in split(len(groups), hsic_batch_size, min_samples) for b in s.bounds())
    for cluster, (start, stop) in enumerate(sets):
        some = groups[start:stop]
        for k in range(max(map(len, some))):
            block = [group[k] for group in some if k < len(group)]
            if len(block) >= min_samples:
                blocks.append((len(block), cluster, block))
    blocks.sort(key=lambda one: -one[0])  # stable: a cluster's largest block stays its first
    order = [sample for *_, block in blocks for sample in block]
    clusters = [cluster for _, cluster, _ in blocks]
    return Arrangement(
        order, _segments([m for m, *_ in blocks]), clusters, len(values) - len(order)
    )


def _segments(sizes: list[int]) -> list[Segment]:
    found, start, offset = [], 0, 0
    for m in dict.fromkeys(sizes):
        blocks = sizes.count(m)
        found.append(Segment(slice(start, start + blocks * m), blocks, m, offset))
        start, offset = start + blocks * m, offset + blocks * m * m
    return found


class Grouping:
    """The groups of one run's samples, batch by batch.

    Attributes:
        crossed: did a group come in two batches?
    """

    def __init__(self, groups: Groups, hsic_batch_size: int | None, min_samples: int) -> None:
        self._sizes = hsic_batch_size, min_samples
        self.crossed = False
        self._groups = groups if callable(groups) else _listed(groups)
        self._drawn = 0  # samples of all batches so far
        self._most = 0  # of a batch
        self._left_out = 0
        self._seen: set[Hashable] = set()

    def values(self, batch: Any, n: int, number: int) -> list[Hashable]:
        """The group of every sample of a batch.

        Args:
            batch: as the loader gave it.
            n: its samples.
            number: of the batch, for messages.

        Raises:
            CompareError: there are not n values, or the function failed.
        """
        if callable(self._groups):
            try:
                found = _listed(self._groups(batch))
            except Exception as error:
                raise CompareError(f"groups= failed at batch {number}: {summary(error)}") from error
            if len(found) != n:
                raise CompareError(
                    f"groups= gave {len(found)} values for the {n} samples of batch {number}; it "
                    "must give one a sample"
                )
            return found
        found = self._groups[self._drawn : self._drawn + n]
        if len(found) != n:
            raise CompareError(
                f"groups= has {len(self._groups)} values and the loader gave more samples by batch "
                f"{number}; it must have one a sample, in the loader's order"
            )
        return found

    def arrange(self, values: Sequence[Hashable], number: int) -> Arrangement:
        """Blocks of a batch; raises CompareError where it has too few groups for one.

        Batches that are shorter than others, as the last may be, are left out then.
        """
        made, least = arrange(values, *self._sizes), self._sizes[1]
        if not made.order and len(values) >= max(self._most, least):
            groups = len({v for v in values if _known(v)}) + sum(not _known(v) for v in values)
            raise CompareError(
                f"batch {number} has samples of {groups} {'group' if groups == 1 else 'groups'} "
                f"only, and a block needs {least} of different groups: give {_REMEDY}"
            )
        return made

    def note(self, values: Sequence[Hashable], made: Arrangement) -> None:
        """A batch went in, or a part of one."""
        used = {values[sample] for sample in made.order if _known(values[sample])}
        self.crossed |= not self._seen.isdisjoint(used)
        self._seen |= used
        self._left_out += made.left_out

    def drawn(self, n: int) -> None:
        """A whole batch of n samples is done."""
        self._drawn += n
        self._most = max(self._most, n)

    def warnings(self) -> list[str]:
        """What the reader of the result should know."""
        found = []
        if self.crossed:
            found.append(
                "Samples of one group came in several batches: batches depend on each other then, "
                'so that no error bars are shown and nothing is called "above chance"; keep each '
                "group within one batch."
            )
        if self._left_out:
            found.append(
                f"{self._left_out} of {self._drawn} samples were left out: too few other groups of "
                f"their batch had as many samples. Give {_REMEDY}, or fewer samples a group."
            )
        return found


def _listed(values: Any) -> list[Hashable]:
    """One hashable value a sample; a column (n, 1) is flattened."""
    if isinstance(values, Tensor) or hasattr(values, "tolist"):
        values = values.tolist()
    found = [v.tolist() if isinstance(v, Tensor) or hasattr(v, "tolist") else v for v in values]
    found = [v[0] if isinstance(v, list) and len(v) == 1 else v for v in found]
    for value in found:
        try:
            hash(value)
        except TypeError:
            raise TypeError(
                f"groups= gave {value!r} for a sample; it must give one number or name a sample"
            ) from None
    return found


def _known(value: Hashable) -> bool:
    """Is it a group's? What is missing, as None, NaN and pandas' NA, does not equal itself."""
    return value is not None and (value == value) is True
