"""What is known of each sample of a batch, beside what the models are given."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple


class SampleFacts(NamedTuple):
    """Lists of n values, or empty where nothing is asked for.

    Attributes:
        groups: which samples belong together.
        classes: their class labels.
    """

    groups: list[Hashable]
    classes: list[Hashable]

    def part(self, start: int, stop: int) -> SampleFacts:
        """Of the samples from start to before stop."""
        return SampleFacts(self.groups[start:stop], self.classes[start:stop])
