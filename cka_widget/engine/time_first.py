"""Which axis of a sequence numbers the samples, where modules may carry time first."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cka_widget.engine.errors import NoRowsError
from cka_widget.engine.ragged import kept_steps


def steps_over_samples(output: Any, x: Tensor | None, n: int, module: nn.Module) -> bool:
    """Whether the axis that a module with `batch_first=False` takes for time is the samples'.

    Args:
        output: what the module returned.
        x: its main tensor; (steps, n, d) if all is well.
        n: number of samples in the batch.
        module: who returned it.
    """
    if x is None or x.dim() != 3 or getattr(module, "batch_first", None) is not False:
        return False
    if kept_steps(output, x) is not None:  # samples come first where sequences were packed
        return False
    return x.shape[0] == n and x.shape[1] != n


class SampleAxis:
    """Of one output of a model: (n, steps, d), or (steps, n, d) if time comes first.

    What one batch shows holds for a later one with as many steps as samples.
    """

    def __init__(self, time_first: bool) -> None:
        """`time_first`: some module of the model has `batch_first=False`."""
        self._possible = time_first
        self._found: bool | None = None

    def is_time_first(self, x: Tensor, n: int, module: nn.Module | None) -> bool:
        """Whether the output x, 3-D, of a batch of n samples carries time first.

        Raises:
            NoRowsError: it has as many steps as samples, and so had all batches before.
        """
        own = getattr(module, "batch_first", None)
        if own is not None:
            return own is False and x.shape[1] == n
        if not self._possible:
            return False
        if x.shape[0] != n or x.shape[1] != n:
            self._found = x.shape[0] != n and x.shape[1] == n
        if self._found is None:
            raise NoRowsError(
                f"cannot tell its {n} steps from its {n} samples; use another batch size"
            )
        return self._found
