"""Particles of one architecture as one call, by `torch.vmap`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cka_widget.engine.restoring.evaluating import Held, Restore

State = Mapping[str, Tensor]


def map_particles(call: Callable[[State], dict[str, Tensor]], state: State) -> dict[str, Tensor]:
    """Call with every particle's parameters at once, and stack what the calls return.

    Random numbers differ between particles, as in calls one after another.

    Args:
        call: takes the parameters of one particle.
        state: those of all, along the first axes.
    """

    def one(particle: State) -> tuple[Tensor, dict[str, Tensor]]:
        # vmap wants a tensor at least; one of the device, as a recording does.
        return next(iter(particle.values())).new_empty(()), call(particle)

    with _plain_attention():
        return torch.vmap(one, randomness="different")(dict(state))[1]


# Of torch's fused encoder kernels, which vmap would call once a particle: off while a run maps.
_fused = Held()
_SWITCH = nn.Module()


@contextmanager
def _plain_attention() -> Iterator[None]:
    user = object()
    try:
        _fused.take(_SWITCH, user, _switch, _switch_off)
        yield
    finally:
        try:
            _fused.leave(user)
        finally:  # once more, where an exception that another thread sent has torn it
            _fused.leave(user)


def _switch(_: nn.Module) -> Restore:
    found = torch.backends.mha.get_fastpath_enabled()
    return lambda: torch.backends.mha.set_fastpath_enabled(found)


def _switch_off(_: nn.Module) -> None:
    torch.backends.mha.set_fastpath_enabled(False)


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
