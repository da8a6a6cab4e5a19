"""Models, ensembles and stacked particles as forward passes to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from cka_widget.engine.calls.calls import Forward, run_model
from cka_widget.engine.models.binding import Binding
from cka_widget.engine.models.layers import unwrap
from cka_widget.engine.models.same_architecture import stacked
from cka_widget.engine.models.vmap import map_particles


@dataclass(frozen=True)
class StackedParticles:
    """An ensemble as `torch.func.stack_module_state` gives it.

    Args:
        base: a module of the particles' architecture, on any device, "meta" included.
        params: name -> tensor (P, ...), every parameter of `base`.
        buffers: name -> tensor (P, ...), every buffer of `base`.

    Raises:
        ValueError: tensors disagree on the number of particles P, which is at least 1, or their
            names are not those of `base`.
    """

    base: nn.Module
    params: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_names()
        for name, tensor in self.all().items():
            if not tensor.dim() or not len(tensor):
                raise ValueError(
                    f'StackedParticles: "{name}" of shape {tuple(tensor.shape)} holds no '
                    "particles; stack them along the first axis, as stack_module_state does"
                )
        if len({len(tensor) for tensor in self.all().values()}) != 1:
            raise ValueError("StackedParticles: params and buffers must share their first size")

    def all(self) -> dict[str, Tensor]:
        """Parameters and buffers of all particles."""
        return {**self.params, **self.buffers}

    def _check_names(self) -> None:
        """What is not given would silently be the base's own in every particle."""
        base, given = unwrap(self.base, "base"), self.all()
        own: dict[Tensor, set[str]] = {}  # a tied tensor has several names, and needs one
        for named in (base.named_parameters, base.named_buffers):
            for name, tensor in named(remove_duplicate=False):
                own.setdefault(tensor, set()).add(name)
        missing = sorted(min(names) for names in own.values() if not names & set(given))
        if missing:
            raise ValueError(
                f'StackedParticles: "{missing[0]}" of the base is not given, {len(missing)} '
                "missing in all; pass both params and buffers of torch.func.stack_module_state"
            )
        unknown = sorted(set(given).difference(*own.values()))
        if unknown:
            raise ValueError(
                f'StackedParticles: "{unknown[0]}" is no parameter or buffer of the base; give a '
                "base of the particles' architecture"
            )

    def __len__(self) -> int:
        return len(next(iter(self.all().values())))

    def state(self, particle: int) -> dict[str, Tensor]:
        """Parameters and buffers of one particle, as views."""
        return {name: tensor[particle] for name, tensor in self.all().items()}


@dataclass
class Pass:
    """One forward pass a batch: of one particle, or of all as one call."""

    model: str
    particle: int
    root: nn.Module  # whose modules are hooked
    state: dict[str, Tensor] | None = None  # of a stacked particle
    particle_axis: int | None = None
    mapped: int | None = None  # how many particles `state` has, all run at once
    binding: Binding | None = None  # of `state`, to `root`

    def alone(self) -> Pass:
        """The first particle as a pass of its own, which changes no other's state."""
        if self.state is None:
            return self
        first = {k: t if self.mapped is None else t[0] for k, t in self.state.items()}
        return replace(self, state=first, mapped=None)

    def __call__(self, batch: Any, forward: Forward | None) -> Any:
        """Run the model on a batch: its output, None where many run at once."""
        binding, state = self.binding, self.state
        if state is None or binding is None:
            return run_model(self.root, batch, forward)
        output = None

        def bound(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
            nonlocal output
            binding.bind(own)
            output = run_model(self.root, batch, forward)
            return binding.changed(own)

        state.update(bound(state) if self.mapped is None else map_particles(bound, state))
        return output if self.mapped is None else None


def bound(passes: dict[str, list[Pass]]) -> dict[str, list[Pass]]:
    """The passes ready to run: those that share a module have a copy of it to themselves.

    Raises:
        ValueError: a model cannot be copied.
    """
    return {name: _bound(name, runs) for name, runs in passes.items()}


def _bound(name: str, runs: list[Pass]) -> list[Pass]:
    if runs[0].state is None:
        return runs
    binding = Binding(runs[0].root, name, runs[0].state)
    return [replace(run, root=binding.root, binding=binding) for run in runs]


def as_passes(
    models: Mapping[str, Any],
    particle_axis: int | Mapping[str, int | None] | None,
    vmap: bool = False,
) -> dict[str, list[Pass]]:
    """The forward passes of every model, by name; with `vmap` one of each ensemble.

    Raises:
        TypeError: `models` is not a mapping, or holds what is no model.
        ValueError: no models, an empty ensemble, or particles of several architectures for
            `vmap`.
    """
    if not isinstance(models, Mapping):
        raise TypeError(
            f"models must be a mapping of names to models, {{'name': model}}, "
            f"not a {type(models).__name__}"
        )
    if not models:
        raise ValueError("models is empty: give one or two models by name")
    by_name = particle_axis if isinstance(particle_axis, Mapping) else {}
    default = None if isinstance(particle_axis, Mapping) else particle_axis
    return {
        str(name): _passes(str(name), model, by_name.get(name, default), vmap)
        for name, model in models.items()
    }


def _passes(name: str, model: Any, axis: int | None, vmap: bool) -> list[Pass]:
    if isinstance(model, StackedParticles):
        root = unwrap(model.base, name)
        if vmap:
            return [Pass(name, 0, root, model.all(), mapped=len(model))]
        return [Pass(name, p, root, model.state(p)) for p in range(len(model))]
    if isinstance(model, (nn.ModuleList, Sequence)) and not isinstance(model, (str, nn.Sequential)):
        if not len(model):
            raise ValueError(f'model "{name}" is an empty list: an ensemble needs particles')
        if axis is not None:
            raise ValueError(f'model "{name}": particle_axis is for one module, not for a list')
        particles = [unwrap(m, f"{name} #{p}") for p, m in enumerate(model)]
        if vmap:
            state = stacked(particles, name)
            return [Pass(name, 0, particles[0], state, mapped=len(particles))]
        return [Pass(name, p, root) for p, root in enumerate(particles)]
    return [Pass(name, 0, unwrap(model, name), particle_axis=axis)]
