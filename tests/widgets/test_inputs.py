"""The first look at models: how long a sample takes."""

from __future__ import annotations

import pytest
import torch
from explorers import Net
from torch import nn

import cka_widget as cw
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


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"batchsize": 3}, TypeError, 'no option "batchsize"; did you mean "hsic_batch_size"'),
        ({"hight": 3}, TypeError, 'did you mean "height"'),
        ({"device": "gpu"}, ValueError, 'did you mean "cuda"'),
        ({"hsic_batch_size": 2}, ValueError, "at least 4"),
        ({"kernel": "cubic"}, ValueError, "kernel='cubic'"),
        ({"reduce": "max"}, ValueError, "reduce='max' is not known"),
        ({"precision": "low"}, ValueError, "precision='low'"),
        ({"max_batches": 0}, ValueError, "max_batches=0"),
        ({"layers": {"B": None}}, ValueError, 'names "B", which is no model'),
        ({"layers": ["head_"]}, ValueError, 'no layer "head_"; did you mean "head"'),
        ({"forward": {"B": len}}, ValueError, "the models are A"),
    ],
)
def test_options_are_checked_when_the_explorer_is_made(options, error, words):
    model = Net()
    with pytest.raises(error, match=words):
        cw.CKAExplorer({"A": model}, [torch.randn(16, 6)], **options)
    assert model.calls == 0


@pytest.mark.parametrize(
    ("loader", "words"),
    [
        (torch.randn(64, 6), "is a tensor.*DataLoader"),
        (torch.utils.data.TensorDataset(torch.randn(64, 6)), "data set.*DataLoader"),
        ("data/", "is a str"),
        (7, "cannot be iterated"),
    ],
)
def test_what_is_no_loader_is_refused_when_the_explorer_is_made(loader, words):
    model = Net()
    for models, given in (({"A": model}, loader), ({"A": model}, {"A": loader})):
        with pytest.raises(TypeError, match=words):
            cw.CKAExplorer(models, given)
    with pytest.raises(TypeError, match=words):
        cw.CKAExplorer({"A": Net()}, [torch.randn(16, 6)], more_data=loader)
    assert model.calls == 0


def test_options_and_loaders_by_name_where_a_model_has_no_layer_ticked():
    loaders = {name: [torch.randn(16, 6) for _ in range(2)] for name in "ABC"}
    calls = {name: lambda model, batch: model(batch) for name in "AB"}
    explorer = cw.CKAExplorer({name: Net() for name in "ABC"}, loaders, forward=calls)
    explorer.layers = {"B": []}
    explorer.pair = ("A", "C")
    explorer.run(block=True)
    assert explorer.state == "done", explorer.failure
    assert explorer.result.samples == 32
