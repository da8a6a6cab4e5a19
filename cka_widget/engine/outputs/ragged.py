"""Sequences of different lengths, packed or nested: padded, and which steps are no padding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence, pad_sequence

from cka_widget.engine.errors import NoFeaturesError


def padded(x: Tensor) -> Tensor:
    """A nested tensor (n, steps of each, ...) with zeros after each sample's last step.

    Raises:
        NoFeaturesError: its samples differ in more than their lengths.
    """
    try:
        if x.layout is torch.strided:
            found: Tensor = torch.nested.to_padded_tensor(x, 0.0)
            return found
        # A jagged view of a longer tensor has holes, which `to_padded_tensor` refuses.
        return pad_sequence(list(x.unbind()), batch_first=True)
    except RuntimeError as error:
        raise NoFeaturesError(
            "its output is a nested tensor that cannot be padded to one size; "
            "pad it in the model, or choose other layers"
        ) from error


def kept_steps(output: Any, x: Tensor) -> Tensor | None:
    """Which steps of a module's output are no padding, where the output itself knows.

    Args:
        output: what the module returned.
        x: its main tensor, padded, (n, steps, ...).

    Returns:
        Tensor (n, steps), bool, or None.
    """
    while type(output) in (tuple, list) and output:  # an LSTM's output and its state
        output = output[0]
    if isinstance(output, PackedSequence):
        lengths = pad_packed_sequence(output, batch_first=True)[1]
    elif isinstance(output, Tensor) and output.is_nested:
        lengths = torch.tensor([len(sample) for sample in output.unbind()])
    else:
        return None
    return torch.arange(x.shape[1], device=x.device) < lengths.to(x.device)[:, None]
