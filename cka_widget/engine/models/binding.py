"""A copy of a model for a run's own use, to which the parameters of particles are bound."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


class Binding:
    """The model given is never touched: others may run it meanwhile, or bind to it as well."""

    def __init__(self, base: nn.Module, model: str, given: Collection[str]) -> None:
        """Copy a model without its parameters.

        Args:
            base: of the particles' architecture; every tensor of it has one of its names in
                `given`.
            model: its name, for messages.
            given: names of the tensors that will be bound.

        Raises:
            ValueError: the model cannot be copied.
        """
        self.root = _own_copy(base, model)
        known: dict[Tensor, str] = {}  # of a tied tensor one name is enough
        for named in (self.root.named_parameters, self.root.named_buffers):
            for name, tensor in named(remove_duplicate=False):
                if name in given:
                    known.setdefault(tensor, name)
        # Where each tensor stands, once a module, and which of the given ones comes there.
        self._places: list[tuple[dict[str, Any], str, str]] = []
        for path, module in self.root.named_modules():
            for held in (module._parameters, module._buffers):
                for key, tensor in held.items():
                    if tensor is not None:
                        name = f"{path}.{key}" if path else key
                        self._places.append((held, key, name if name in given else known[tensor]))

    def bind(self, state: Mapping[str, Tensor]) -> None:
        """Have the copy run with these."""
        for held, key, name in self._places:
            held[key] = state[name]

    def changed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a pass has put in the place of bound tensors, as buffers that count."""
        return {name: held[key] for held, key, name in self._places if held[key] is not state[name]}


def _own_copy(base: nn.Module, model: str) -> nn.Module:
    memo: dict[int, Any] = {}
    for tensor in chain(base.parameters(), base.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        own = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if own else empty
    for module in base.modules():
        for value in vars(module).values():  # what a forward pass has left there
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach()
    try:
        return copy.deepcopy(base, memo)
    except Exception as error:
        raise ValueError(
            f'model "{model}" cannot be copied ({type(error).__name__}: {error}), which particles '
            "that share a module need; give a list of models, without vmap=True"
        ) from error
