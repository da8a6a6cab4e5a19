"""The first look at models: how long a sample takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cka_widget.widgets import inputs


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        assert not self.training
        return x


@pytest.mark.parametrize(("worth", "sizes"), [(0.0, [2]), (float("inf"), [2, 16, 16])])
def test_only_small_models_are_timed_on_many_samples(monkeypatch, worth, sizes):
    monkeypatch.setattr(inputs, "WORTH", worth)
    model = Counts().train()
    assert inputs.seconds_a_sample(model, torch.zeros(64, 3), None) > 0
    assert model.sizes == sizes
    assert model.training


def test_a_model_that_fails_has_no_time():
    assert inputs.seconds_a_sample(nn.Linear(4, 2), torch.zeros(8, 3), None) is None
