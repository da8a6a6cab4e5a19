"""Which particles `vmap=True` takes for one architecture."""

from __future__ import annotations

from functools import partial
from types import MethodType, SimpleNamespace

import pytest
import torch
import zoo
from checks import run, same
from torch import nn
from torch.nn.functional import leaky_relu


def hooked(model: zoo.Chosen) -> zoo.Chosen:
    model.lin.register_forward_hook(lambda module, args, out: torch.sin(out))
    return model


def other_forward(model: zoo.Chosen) -> zoo.Chosen:
    model.forward = MethodType(lambda self, x: self.lin(x) ** 2, model)  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize(
    ("other", "where"),
    [
        (zoo.mlp(0), "(output)"),
        (zoo.Chosen(torch.tanh), "activation"),
        (zoo.Chosen(pools=3), "pools"),
        (zoo.Chosen().double(), "lin.weight"),
        (zoo.Chosen(pools={"act": ["relu", 3]}), "pools"),
        (zoo.Chosen(pools=torch.ones(2)), "pools"),
        (zoo.Chosen(partial(leaky_relu, negative_slope=0.3)), "activation"),
        (zoo.Chosen(lambda x: x - 1), "activation"),
        (hooked(zoo.Chosen()), "lin._forward_hooks"),
        (other_forward(zoo.Chosen()), "forward"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_particles_of_several_architectures(other: nn.Module, where: str) -> None:
    with pytest.raises(ValueError, match=r'model "e": particle 1 differs from particle 0') as error:
        run({"e": [zoo.Chosen(), other]}, zoo.vectors(), vmap=True)
    assert f'"{where}"' in str(error.value)
    assert "leave it out" in str(error.value)


def test_settings_that_are_equal_are_the_same() -> None:
    """Objects and functions of each particle's own, as constructors make them."""

    def made(seed: int) -> zoo.Chosen:
        model: zoo.Chosen = zoo.seeded(zoo.Chosen, seed=seed)
        slope = 0.3
        model.activation = lambda x: leaky_relu(x, slope)
        model.pools = SimpleNamespace(sizes=[1, 2], act="relu", scale=torch.ones(2))
        return model

    models, batches = [made(seed) for seed in range(3)], zoo.vectors()
    same(run({"e": models}, batches, vmap=True), run({"e": models}, batches))
