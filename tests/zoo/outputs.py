"""What a module can return: tuples, mappings, dataclasses, nothing."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Out:
    features: Tensor
    loss: Tensor | None = None


class ModelOutput(OrderedDict[str, Any]):
    """As in transformers: an ordered mapping that also has attributes and integer indices."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, key: Any) -> Any:
        return list(self.values())[key] if isinstance(key, int) else super().__getitem__(key)


class TupleOut(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, None, Tensor]:
        return torch.sin(x), None, torch.zeros(1)


class NoneFirst(nn.Module):
    def forward(self, x: Tensor) -> tuple[None, list[Tensor]]:
        return None, [torch.cos(x)]


class DictOut(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"last_hidden_state": torch.exp(-x * x), "pooled": x[:, :1]}


class DataclassOut(nn.Module):
    def forward(self, x: Tensor) -> Out:
        return Out(x * x)


class ModelOutputOut(nn.Module):
    def forward(self, x: Tensor) -> ModelOutput:
        return ModelOutput(last_hidden_state=x.abs(), pooler_output=x[:, :1])


class Outputs(nn.Module):
    """One layer for each type of output that is met in the wild."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.lin = nn.Linear(d, 10)
        self.tuple = TupleOut()
        self.none_first = NoneFirst()
        self.dict = DictOut()
        self.dataclass = DataclassOut()
        self.model_output = ModelOutputOut()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.lin(x)
        parts = [self.tuple(x)[0], self.none_first(x)[1][0], self.dict(x)["last_hidden_state"]]
        parts += [self.dataclass(x).features, self.model_output(x).last_hidden_state]
        return {"logits": torch.cat(parts, 1)}


class Text(nn.Module):
    """A layer whose output has no tensor, one with a scalar, one with integers, one complex."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.lin = nn.Linear(d, 6)
        self.words, self.scalar = Returns(lambda x: "text"), Returns(lambda x: x.mean())
        self.nothing = Returns(lambda x: None)
        self.ids = Returns(lambda x: x.argmax(1))
        self.waves = Returns(lambda x: torch.fft.fft(x))

    def forward(self, x: Tensor) -> Tensor:
        x = self.lin(x)
        for part in (self.words, self.scalar, self.nothing, self.ids, self.waves):
            part(x)
        return x + 1


class Returns(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)
