"""Particles of one architecture as one call, by `torch.vmap`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

# Attributes of modules that decide what a forward pass computes.
_SIMPLE = (bool, int, float, str, type(None), FunctionType, BuiltinFunctionType)
# And those that do not.
_ASIDE = {"training", "_is_full_backward_hook"}


def map_particles(call: Callable[[Mapping[str, Tensor]], object], state: dict[str, Tensor]) -> None:
    """Call with every particle's parameters at once; `state` has them along the first axes.

    Random numbers differ between particles, as in calls one after another.
    """

    def one(particle: dict[str, Tensor]) -> Tensor:
        call(particle)
        return torch.zeros(())  # vmap returns tensors alone, and models return all kinds of things

    with _plain_attention():
        torch.vmap(one, randomness="different")(state)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Without torch's fused encoder kernels, which vmap would call once a particle."""
    switch = torch.backends.mha
    found = switch.get_fastpath_enabled()
    switch.set_fastpath_enabled(False)
    try:
        yield
    finally:
        switch.set_fastpath_enabled(found)


def unmapped(x: Tensor) -> tuple[Tensor, int | None]:
    """Within `map_particles`: the tensor of all particles, and its axis that numbers them.

    The axis is None where x does not depend on the particle.
    """
    found = _Found()
    _Look.apply(x, found)  # type: ignore[no-untyped-call]
    assert found.tensor is not None
    return found.tensor, found.axis


class _Found:
    """Carries a tensor out; not a list, in which vmap would look for tensors."""

    tensor: Tensor | None = None
    axis: int | None = None


class _Look(torch.autograd.Function):
    """The documented way to see a tensor under vmap as it is: a rule for batches of one's own."""

    @staticmethod
    def forward(x: Tensor, found: _Found) -> Tensor:
        found.tensor = x
        return x.new_empty(())

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: there is no backward pass."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, None], x: Tensor, found: _Found
    ) -> tuple[Tensor, None]:
        found.tensor, found.axis = x, in_dims[0]
        return x.new_empty(()), None


def stacked(models: Sequence[nn.Module], name: str) -> dict[str, Tensor]:
    """Parameters and buffers of all particles, copied side by side along a new first axis.

    Raises:
        ValueError: the particles are not of one architecture.
    """
    first = dict(_described(models[0]))
    for number, model in enumerate(models[1:], start=1):
        other = dict(_described(model))
        if other != first:
            differing = next(k for k in {**first, **other} if first.get(k) != other.get(k))
            raise ValueError(
                f'model "{name}": particle {number} differs from particle 0 in "{differing}", and '
                "vmap=True needs particles of one architecture; leave it out to run them one by one"
            )
    states = [_state(model) for model in models]
    return {key: torch.stack([s[key].detach() for s in states]) for key in states[0]}


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _described(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """All that must be the same in particles: kinds, settings and shapes, by dotted name."""
    for path, module in model.named_modules():
        yield path or "(output)", type(module)
        for key, value in vars(module).items():
            if key not in _ASIDE and _is_simple(value):
                yield f"{path}.{key}".lstrip("."), value
    for key, tensor in _state(model).items():
        yield key, (tensor.shape, tensor.dtype, tensor.device)


def _is_simple(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_simple(v) for v in value)
    return isinstance(value, _SIMPLE)
