"""Output types that a user registers, whose runs must be those of models that return tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from typing import Any

import pytest
import torch
import zoo
from checks import run, same
from torch import Tensor, nn

import cka_widget as cw
from cka_widget.torch_cka import CKA


def plain() -> type:
    """A new type, which the engine does not know: a registration has no way back."""
    return type("Plain", (), {"__init__": lambda self, hidden: setattr(self, "hidden", hidden)})


def scored() -> type:
    """A new dataclass, whose first tensor is not the one that counts."""

    @dataclass
    class Scored:
        hidden: InitVar[Tensor]
        loss: Tensor = field(init=False)
        kept: Tensor = field(init=False)

        def __post_init__(self, hidden: Tensor) -> None:
            self.loss, self.kept = hidden.pow(2).sum(1), hidden

    return Scored


class Block(nn.Module):
    """A layer, what it makes wrapped."""

    def __init__(self, seed: int, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.lin, self.wrap = nn.Linear(8, 8), wrap

    def forward(self, x: Any) -> Any:
        return self.wrap(self.lin(hidden(x)).tanh())


def model(seed: int, wrap: Callable[[Tensor], Any]) -> nn.Module:
    return nn.Sequential(Block(seed, wrap), Block(seed + 1, wrap))


def hidden(output: Any) -> Tensor:
    """The tensor that counts."""
    found: Tensor = getattr(output, "kept", getattr(output, "hidden", output))
    return found


def unwrapped(x: Tensor) -> Tensor:
    """What a module returns that wraps nothing."""
    return x


@pytest.mark.parametrize("make", [plain, scored])
@pytest.mark.parametrize("inherits", [False, True])
def test_a_registered_output_counts_as_its_tensor(make: Callable[[], type], inherits: bool) -> None:
    base = make()
    cw.register_output(base, hidden)
    kind = type("Child", (base,), {}) if inherits else base
    batches, layers = zoo.vectors(96), ["0", "1"]
    found, expected = (
        run({"a": model(0, wrap), "b": [model(2, wrap), model(4, wrap)]}, batches)
        for wrap in (kind, unwrapped)
    )
    assert set(layers) <= set(found.layers("a"))
    same(found, expected)
    one, other = (
        CKA(model(0, wrap), model(2, wrap), "a", "b", layers, layers) for wrap in (kind, unwrapped)
    )
    for cka in (one, other):
        cka.compare(batches)
    assert torch.equal(one.export()["CKA"], other.export()["CKA"])
    assert not one.export()["CKA"].isnan().any()


def test_the_last_registration_holds() -> None:
    kind = plain()
    cw.register_output(kind, lambda output: None)
    assert run({"a": model(0, kind)}, zoo.vectors(96)).layers("a") == ["0.lin", "1.lin"]
    cw.register_output(kind, hidden)
    assert "0" in run({"a": model(0, kind)}, zoo.vectors(96)).layers("a")


def test_a_type_that_nobody_registered_has_no_row_and_says_why() -> None:
    found = run({"a": model(0, plain())}, zoo.vectors(96))
    with pytest.raises(
        KeyError, match=r'"0" of model "a" .*: its output holds no tensor \(Plain\)'
    ):
        found.why("a", "a", "0", "0")


@pytest.mark.parametrize(
    ("kind", "function", "sentence"),
    [
        ("Plain", len, "needs a class of outputs, not 'Plain'"),
        (plain()(1), len, "needs a class of outputs, not <"),
        (list[int], len, r"needs a class of outputs, not list\[int\]"),
        (Tensor, len, "Tensor is a tensor, which stands for itself"),
        (plain(), "hidden", r"\(Plain, ...\) needs a function .* not 'hidden'"),
        (plain(), None, "not None"),
    ],
)
def test_what_is_no_type_and_no_function_is_refused(
    kind: Any, function: Any, sentence: str
) -> None:
    with pytest.raises(TypeError, match=sentence) as caught:
        cw.register_output(kind, function)
    assert str(caught.value).startswith("register_output")
    assert "\n" not in str(caught.value)


def test_a_function_that_gives_no_tensor_stops_the_run() -> None:
    kind = plain()
    cw.register_output(kind, lambda output: [output.hidden])
    sentence = 'layer "0" failed .*registered for Plain gave a list, not a tensor'
    with pytest.raises(cw.CompareError, match=sentence):
        run({"a": model(0, kind)}, zoo.vectors(96))
