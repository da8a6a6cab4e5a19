"""Options that cannot work are refused by name before anything runs, by the engine alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo
from checks import TOLERANCE, largest_error, run
from oracles import reference_compare
from torch import nn

from cka_widget.engine.compare import iter_compare


@pytest.mark.parametrize(
    ("name", "near"),
    [("batchsize", "hsic_batch_size"), ("layer", "layers"), ("max_batch", "max_batches")],
)
def test_an_unknown_option_offers_the_nearest(name: str, near: str) -> None:
    model = zoo.Counting(zoo.mlp())
    for call in (run, iter_compare):
        with pytest.raises(TypeError, match=f'no option "{name}"; did you mean "{near}"'):
            call({"a": model}, zoo.vectors(), **{name: 3})
    assert not model.sizes


def test_where_no_option_is_near_all_are_told() -> None:
    with pytest.raises(TypeError, match=r'no option "qqq"; the options are .*layers, .*vmap'):
        run({"a": zoo.mlp()}, zoo.vectors(), qqq=1)


@pytest.mark.parametrize(
    ("option", "error", "words"),
    [
        ({"reduce": "man"}, ValueError, "reduce='man' is not known; did you mean \"mean\""),
        ({"reduce": 3}, TypeError, "or a function"),
        ({"forward": "model(x)"}, TypeError, "forward='model.x.' must be a function"),
        ({"forward": {"a": 3}}, TypeError, "forward=3 must be a function"),
        ({"forward": {"resnet": len}}, ValueError, 'forward= names "resnet", which is no model'),
        ({"layers": {"aa": None}}, ValueError, 'names "aa", which is no model; did you mean "a"'),
        ({"particle_axis": {"b": 1}}, ValueError, "the models are a"),
        ({"hsic_batch_size": 2.5}, TypeError, "hsic_batch_size=2.5 must be a whole number"),
        ({"max_batches": "all"}, TypeError, "max_batches='all' must be a whole number"),
        ({"stop_at_stderr": "small"}, TypeError, "must be a number"),
        ({"max_batches": True}, TypeError, "max_batches=True must be a whole number"),
        ({"unbiased": "no"}, TypeError, "unbiased='no' must be True or False"),
        ({"vmap": "a"}, TypeError, "vmap='a' must be True or False"),
        ({"cuda_graph": None}, TypeError, "cuda_graph=None must be True or False"),
        ({"particle_axis": "0"}, TypeError, "particle_axis='0' must be a whole number"),
        ({"particle_axis": {"a": 0.5}}, TypeError, "particle_axis=0.5 must be a whole number"),
        ({"precision": "low"}, ValueError, "precision='low' is not known"),
        ({"device": "gpu"}, ValueError, "device='gpu' is not known; did you mean \"cuda\""),
        ({"device": "cudda:1"}, ValueError, 'did you mean "cuda"'),
        ({"device": "meta"}, ValueError, "device='meta' cannot be used here"),
        ({"device": 1.5}, ValueError, "device='1.5' is not known; choose one of cpu, cuda"),
    ],
)
def test_a_value_that_cannot_work(option: dict[str, Any], error: type, words: str) -> None:
    model = zoo.Counting(zoo.mlp())
    with pytest.raises(error, match=words):
        run({"a": model}, zoo.vectors(), **option)
    assert not model.sizes


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are CUDA devices")
@pytest.mark.parametrize("device", ["cuda", "cuda:9", torch.device("cuda", 0)])
def test_a_gpu_that_is_not_there(device: Any) -> None:
    with pytest.raises(ValueError, match=r"device='cuda.*no CUDA device here; take device=\"cpu\""):
        run({"a": zoo.mlp()}, zoo.vectors(), device=device)


def test_a_gpu_with_too_high_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="no such device here, only cuda:0, cuda:1"):
        run({"a": zoo.mlp()}, zoo.vectors(), device="cuda:9")


def test_forward_by_name() -> None:
    """A model that is not named is called as without `forward=`."""
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1), "c": zoo.seeded(nn.Linear, 16, 4)}
    batches = [torch.cat([b, b.flip(0)], 1) for b in zoo.vectors()]
    calls = {"a": lambda model, b: model(b[:, :8]), "b": lambda model, b: model(b[:, 8:])}
    found = run(models, batches, forward=calls)
    by_model = {models[name]: call for name, call in calls.items()}
    reference = reference_compare(
        models, batches, call=lambda m, b: by_model[m](m, b) if m in by_model else m(b)
    )
    assert largest_error(found, reference) <= TOLERANCE
