"""What centring takes from features, kept beside their Grams for measures of angles."""

from __future__ import annotations

import torch
from torch import Tensor

from cka_widget.engine.grams import accelerator
from cka_widget.engine.grams.blocks import Segment
from cka_widget.engine.grams.distances import Raw
from cka_widget.engine.grams.forming import Taken

_CHUNK_BYTES, _ACCELERATOR_BYTES = 1 << 20, 1 << 30


class RawFacts:
    """`Raw` of all rows of a batch: three numbers a sample, two a block."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._by_sample = torch.zeros(0, 3, 0, dtype=dtype, device=device)
        self._by_block = torch.zeros(0, 2, 0, dtype=dtype, device=device)

    def reserve(self, rows: int, segments: list[Segment]) -> None:
        """Make room for so many rows of the batch's blocks."""
        samples = sum(s.blocks * s.size for s in segments)
        blocks = sum(s.blocks for s in segments)
        self._by_sample = _grown(self._by_sample, rows, samples)
        self._by_block = _grown(self._by_block, rows, blocks)

    def put(self, row: int, x: Tensor, segments: list[Segment], taken: Taken) -> None:
        """Keep what was taken from a row's features x (n, d)."""
        dtype = torch.promote_types(x.dtype, self._by_sample.dtype)
        first = at = 0
        for s in segments:
            part = x[s.samples].view(s.blocks, s.size, -1)
            found, energies = _facts(part, dtype, taken)
            stop, end = first + s.blocks * s.size, at + s.blocks
            self._by_sample[row, :, first:stop] = found.flatten(1)
            self._by_block[row, :, at:end] = energies
            first, at = stop, end

    def copy(self, row: int, source: int) -> None:
        """The row's output is the source row's."""
        self._by_sample[row] = self._by_sample[source]
        self._by_block[row] = self._by_block[source]

    def of(self, rows: int, samples: slice, blocks: slice) -> Raw:
        """That of some blocks, by their samples."""
        count = blocks.stop - blocks.start
        found = self._by_sample[:rows, :, samples]
        level, along, varying = found.view(rows, 3, count, -1).unbind(1)
        energy, energy_varying = self._by_block[:rows, :, blocks].unbind(1)
        return Raw(level, along, varying, energy, energy_varying)


def _facts(x: Tensor, dtype: torch.dtype, taken: Taken) -> tuple[Tensor, Tensor]:
    """The three numbers of every sample (3, blocks, m), the two of every block (2, blocks)."""
    blocks, m, d = x.shape
    found = torch.zeros(3, blocks, m, dtype=dtype, device=x.device)
    energies = torch.zeros(2, blocks, dtype=dtype, device=x.device)
    scale = 2.0 ** (taken.shift + taken.boost / 2)
    if not d:
        return found, energies
    if not taken.centred:
        found[0] = x.sum(-1, dtype=dtype) * (scale / d**0.5)
        return found, energies
    mean = x.mean(1, dtype=dtype) * scale
    varying = mean - mean.mean(-1, keepdim=True)
    energies[0], energies[1] = mean.square().sum(-1), varying.square().sum(-1)
    sides = torch.stack([torch.full_like(mean, d**-0.5), mean, varying], -1)  # (blocks, d, 3)
    budget = _ACCELERATOR_BYTES if accelerator.accelerated(x.device) else _CHUNK_BYTES
    width = max(256, budget // (blocks * m * dtype.itemsize))
    for start in range(0, d, width):
        at = slice(start, start + width)
        centred = x[..., at].to(dtype) * scale - mean[:, None, at]
        found += (centred @ sides[:, at]).movedim(-1, 0)
    return found, energies


def _grown(kept: Tensor, rows: int, width: int) -> Tensor:
    if kept.shape[0] >= rows and kept.shape[2] == width:
        return kept
    grown = kept.new_zeros(rows, kept.shape[1], width)
    if kept.shape[2] == width:
        grown[: len(kept)] = kept
    return grown
