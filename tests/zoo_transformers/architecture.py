"""The networks of the zoo: how each is built, and its batches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]

_FILE = json.loads(Path(__file__).with_name("architectures.json").read_text())


@dataclass(frozen=True)
class Architecture:
    """A network of random weights from a small configuration.

    Attributes:
        model: name of its class.
        inputs: key of the batch -> the shape of a sample of normal numbers, "T" being the number
            of tokens, or another kind of data (see `_draw`).
        options: of the configuration.
        config: name of the configuration's class, by default that of the model.
        same: a number of samples that is the length of another axis too.
        slow: takes more than a second, or is much like another one.
    """

    model: str
    inputs: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    config: str | None = None
    same: int = 12
    slow: bool = False

    def build(self) -> nn.Module:
        """Its hidden states are asked for, which its first pass registers hooks for."""
        import transformers

        torch.manual_seed(0)
        kind = getattr(transformers, self.config or self.model.replace("Model", "Config"))
        config = kind(**self.options, output_hidden_states=True)
        model: nn.Module = getattr(transformers, self.model)(config)
        return model

    def batches(self, sizes: tuple[int, ...], tokens: int) -> list[Batch]:
        generator = torch.Generator().manual_seed(0)
        return [
            {key: _draw(kind, n, tokens, generator) for key, kind in self.inputs.items()}
            for n in sizes
        ]


def _draw(kind: Any, n: int, tokens: int, generator: torch.Generator) -> Tensor:
    if isinstance(kind, list):
        shape = [tokens if length == "T" else length for length in kind]
        return torch.randn(n, *shape, generator=generator)
    name, *shape = kind.split()
    if name == "ones":
        return torch.ones(n, *map(int, shape))
    if name == "tokens":
        return torch.randint(5, 50, (n, tokens), generator=generator)
    if name == "mask":  # padding on the right
        lengths = torch.randint(4, tokens + 1, (n, 1), generator=generator)
        return (torch.arange(tokens) < lengths).long()
    if name == "steps":
        return torch.arange(tokens).repeat(n, 1)
    if name == "boxes":
        corner = torch.randint(0, 20, (n, tokens, 2), generator=generator)
        return torch.cat([corner, corner + 5], dim=2)
    raise ValueError(f"no kind of data is called {kind!r}")


def _read(entry: dict[str, Any]) -> Architecture:
    inputs, base = entry.pop("inputs"), entry.pop("base", None)
    options = {**(_FILE["bases"][base] if base else {}), **entry.pop("options", {})}
    named = _FILE["inputs"][inputs] if isinstance(inputs, str) else inputs
    return Architecture(inputs=named, options=options, **entry)


ZOO = [_read(dict(entry)) for group in ("images", "text", "other") for entry in _FILE[group]]
