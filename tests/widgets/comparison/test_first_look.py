"""The first look at models and data, and what is refused there."""

from __future__ import annotations

import pytest
import torch
import zoo
from explorers import Net
from torch import nn

import cka_widget as cw
from cka_widget.widgets.comparison import first_look


@pytest.mark.parametrize(
    ("worth", "sizes"), [(0.0, []), (float("inf"), [16])], ids=["slow", "quick"]
)
def test_an_explorer_runs_each_model_on_2_and_on_3_samples(monkeypatch, worth, sizes):
    """And a small one on a few more, against the clock; the state of each stays."""
    monkeypatch.setattr(first_look, "WORTH", worth)
    models = {name: zoo.Counting(Net()).train() for name in "AB"}
    loader = [torch.randn(64, 6) for _ in range(2)]
    found = {name: zoo.state_of(model) for name, model in models.items()}
    cw.CKAExplorer(models, loader)
    for name, model in models.items():
        assert (model.probed, model.sizes) == ([2, 3], sizes)
        zoo.assert_same_state(found[name], model)


def test_a_model_that_refuses_few_samples_runs_once_on_the_whole_batch():
    model = zoo.Counting(zoo.Returns(lambda x: x.reshape(-1, 16, 6)))
    explorer = cw.CKAExplorer({"A": model}, [torch.randn(64, 6) for _ in range(2)])
    assert model.sizes == [64]
    assert set(model.probed) == {2}
    assert explorer._study.trees["A"].ran


@pytest.mark.parametrize("few", [0.001, None])
def test_a_model_that_refuses_more_samples_has_the_time_of_few(few):
    model = nn.Linear(4, 2)
    assert first_look.seconds_a_sample(model, torch.zeros(8, 3), None, None, few) == few


def test_a_model_that_fails_has_no_time():
    explorer = cw.CKAExplorer({"A": nn.Linear(4, 2)}, [torch.zeros(8, 3)])
    assert explorer._study.trees["A"].seconds is None
    assert explorer._study.plan({"A": ["(output)"]}, explorer._known).costs.forward is None


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"batchsize": 3}, TypeError, 'no option "batchsize"; did you mean "hsic_batch_size"'),
        ({"hight": 3}, TypeError, 'did you mean "height"'),
        ({"device": "gpu"}, ValueError, 'did you mean "cuda"'),
        ({"hsic_batch_size": 2}, ValueError, "at least 4"),
        ({"groups": "clip"}, TypeError, "groups='clip' must be one value a sample"),
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


def test_lists_of_images_and_their_targets_by_forward():
    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.sizes = nn.Linear(6, 2), []

        def forward(self, images):
            self.sizes.append(len(images))
            return [{"boxes": box} for box in self.head(torch.stack(images).mean((1, 2)))]

    batches = [([torch.randn(3, 5, 6) for _ in range(8)], [{}] * 8) for _ in range(3)]
    model = Detector()
    explorer = cw.CKAExplorer({"A": model}, batches, forward=lambda m, batch: m(batch[0]))
    assert model.sizes[:2] == [2, 3]
    explorer.run(block=True)
    assert explorer.state == "done", explorer.failure
    assert explorer.result.samples == 24


def test_an_explorer_is_made_where_a_run_would_warn_or_refuse():
    class Optional(nn.Linear):
        def forward(self, x, lengths=None):
            return super().forward(x)

    model = Optional(6, 4)
    explorer = cw.CKAExplorer({"A": model}, [(torch.randn(16, 6), torch.arange(16))] * 2)
    explorer.run(block=True)
    assert [s for s in explorer.result.warnings if "lengths=batch[1]" in s]
    refused = cw.CKAExplorer({"A": model}, [[torch.randn(6)] * 8])
    assert "single samples" in refused._study.trees["A"].error
    refused.run(block=True)
    assert refused.state == "failed"
    assert "forward=" in refused.failure.sentence
