"""The oracle of the zoo, on a network whose outputs are known by construction."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from torch import Tensor, nn
from zoo_transformers import oracle


class Folds(nn.Module):
    """Takes samples (n, 6, 4); its layers hold them in many shapes."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("plain", "inner", "outer", "both", "steps_first", "weight", "moves", "pairs"):
            self.add_module(name, nn.Identity())
        self.lin = nn.Linear(4, 4)
        self.table = nn.Parameter(torch.randn(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        x = self.plain(self.lin(x))
        self.inner(x.reshape(n * 3, 2, 4))
        self.outer(x.reshape(n, 3, 8).transpose(0, 1).reshape(3 * n, 8))
        self.both(x.reshape(n, 3, 2, 4).transpose(0, 1).reshape(6 * n, 4))
        self.steps_first(x.transpose(0, 1) + 0)
        self.weight(self.table * 1)
        self.moves(x - x.mean(dim=0))
        self.pairs(x.flatten(1) @ x.flatten(1).T)
        return x.sum(dim=1)


@pytest.mark.parametrize("n", [5, 6])  # 6 is the number of steps too
def test_an_output_is_proved_by_single_samples(n: int) -> None:
    model = Folds()
    batches = [{"x": torch.randn(m, 6, 4)} for m in (n, n + 2)]
    found, others = oracle.outputs(model, batches)
    names = {module: name for name, module in model.named_modules()}
    rows = {names[module]: row for (module, _), row in found.items()}
    assert set(rows) == {"lin", "plain", "inner", "outer", "both", "steps_first", "pairs", ""}
    assert {names[module] for module, _ in others} == {"weight", "moves"}
    for name in ("inner", "outer", "both", "steps_first"):
        for row, plain in zip(rows[name], rows["plain"], strict=True):
            np.testing.assert_array_equal(np.sort(row), np.sort(plain), name)


def test_its_cka_is_that_of_the_closed_form() -> None:
    generator = np.random.default_rng(0)
    sizes = (9, 9, 5)
    rows = [[generator.normal(size=(n, d)) for n in sizes] for d in (3, 7)]
    rows.append([(x[:, :2] + 0.1 * y[:, :2]) * 1e-4 for x, y in zip(*rows, strict=True)])
    grams = [[oracles.linear_gram(x) for x in row] for row in rows]
    expected = [[oracles.minibatch_cka(x, y) for y in grams] for x in grams]
    np.testing.assert_allclose(oracle.cka(rows), expected, atol=1e-9)
