"""Which modules of a model are compared, and under which names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import nn

from cka_widget.names import did_you_mean

# The root module's own output, where no child returns the same.
OUTPUT = "(output)"

Predicate = Callable[[str, nn.Module], bool]
Layers = str | Iterable[str] | Predicate | None


def unwrap(model: nn.Module, name: str = "model") -> nn.Module:
    """The module inside torch.compile, DataParallel and DistributedDataParallel.

    Raises:
        TypeError: not an `nn.Module`, or a scripted one, whose modules take no Python hooks.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f'model "{name}" is a {type(model).__name__}, not a torch.nn.Module')
    while True:
        if isinstance(model, torch.jit.ScriptModule):
            raise TypeError(
                f'model "{name}" is a scripted or traced module, whose layers cannot be read; '
                "give the original nn.Module"
            )
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(
            model, (nn.DataParallel, nn.parallel.DistributedDataParallel)
        ):
            inner = model.module
        if inner is None:
            return model
        model = inner


def named_layers(root: nn.Module) -> dict[str, nn.Module]:
    """Dotted name -> module, registration order; a shared module stands under its first name.

    The root is last, as `(output)`. Compiled children are named as before compilation. What
    computes a weight (weight_norm, orthogonal, ...) is no layer.
    """
    named = {
        _without_wrappers(name): module
        for name, module in root.named_modules()
        if module != root and "parametrizations" not in name.split(".")
    }
    return {**named, OUTPUT: root}


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def split_call(label: str) -> tuple[str, int | None]:
    """`"relu#2"` -> `("relu", 2)`; `"relu"` -> `("relu", None)`."""
    name, _, call = label.rpartition("#")
    return (name, int(call)) if name and call.isdigit() else (label, None)


class Choice:
    """The layers chosen of one model, before it has run.

    `modules` maps each chosen module's name to itself; `wants(name, call)` tells whether that
    call is a row; `ordered` are the labels of an explicit list, in its order; `asked` maps further
    names by which the list asks for a shared module to that module's.
    """

    def __init__(self, root: nn.Module, layers: Layers, model: str) -> None:
        """Raises ValueError naming the nearest real name where a name does not exist."""
        named = named_layers(root)
        self.distinct = layers is None
        self.ordered: list[str] = []
        self.asked: dict[str, str] = {}
        self._calls: dict[str, set[int | None]] = {}
        if layers is None:
            self.modules = named
        elif isinstance(layers, str):
            self.modules = {k: m for k, m in named.items() if fnmatchcase(k, layers)}
            if not self.modules:
                near = did_you_mean(layers, named)
                raise ValueError(f'model "{model}": no layer matches "{layers}"{near}')
        elif callable(layers):
            self.modules = {k: m for k, m in named.items() if layers(k, m)}
            if not self.modules:
                raise ValueError(f'model "{model}": the predicate chose no layer')
        else:
            self._choose_listed(named, list(layers), root, model)

    def _choose_listed(
        self, named: dict[str, nn.Module], labels: list[str], root: nn.Module, model: str
    ) -> None:
        aliases = {
            _without_wrappers(name): module
            for name, module in root.named_modules(remove_duplicate=False)
        }
        canonical = {module: name for name, module in named.items()}
        self.modules = {}
        for label in labels:
            name, call = (label, None) if label in named else split_call(label)
            if name not in named and aliases.get(name) in canonical:
                self.asked[name] = canonical[aliases[name]]
                name = self.asked[name]
            if name not in named:
                raise ValueError(
                    f'model "{model}" has no layer "{label}"{did_you_mean(name, named)}'
                )
            self.modules[name] = named[name]
            self._calls.setdefault(name, set()).add(call)
            label = name if call is None else f"{name}#{call}"
            if label not in self.ordered:
                self.ordered.append(label)
        if not self.modules:
            raise ValueError(f'model "{model}": the list of layers is empty')

    def wants(self, name: str, call: int) -> bool:
        """Is the call-th call (from 1) of this module a row?"""
        calls = self._calls.get(name)
        return calls is None or None in calls or call in calls


def choose(roots: list[nn.Module], layers: Layers, model: str) -> list[Choice]:
    """One choice a particle; they must agree.

    Raises:
        ValueError: the particles' architectures differ in the chosen layers.
    """
    first = Choice(roots[0], layers, model)
    choices = [first]
    for number, root in enumerate(roots[1:], start=1):
        try:
            choice = Choice(root, layers, model)
        except ValueError as error:
            raise ValueError(f"particle {number} of {error}") from None
        differing = sorted(set(choice.modules) ^ set(first.modules))
        if differing:
            shown = ", ".join(f'"{name}"' for name in differing[:4])
            more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
            raise ValueError(
                f'the particles of model "{model}" differ: only one of particle 0 and particle '
                f"{number} has {shown}{more}; choose layers that exist in all of them"
            )
        choices.append(choice)
    return choices


def layers_of(layers: Layers | Mapping[str, Layers], model: str) -> Layers:
    """The choice for one model out of a choice for all or a mapping by model name."""
    return layers.get(model) if isinstance(layers, Mapping) else layers
