"""What may be compared, on what data, and which layers of it."""

from __future__ import annotations

import collections
import itertools
import re

import numpy as np
import pytest
import torch
import zoo
from checks import TOLERANCE, assert_complete, largest_error, run
from oracles import reference_compare
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cka_widget.engine.data.streams import Stream
from cka_widget.engine.errors import CompareError


def masked_mean(batch: dict) -> object:
    """The oracle's token mean over unpadded positions; other outputs flattened."""
    mask = batch["attention_mask"].bool()

    def rows(tensor: torch.Tensor) -> np.ndarray:
        x = tensor.double().clone()
        if x.dim() == 3:
            x = torch.stack([tokens[kept].mean(0) for tokens, kept in zip(x, mask, strict=True)])
        return x.flatten(1).numpy()

    return rows


def reference_of_masked(
    models: dict, batches: list[dict], call: object, **options: object
) -> object:
    """The oracle of batches that each have a mask of their own."""
    parts = [
        reference_compare(models, [batch], call=call, rows=masked_mean(batch), **options)
        for batch in batches
    ]
    for part in parts[1:]:
        for key, value in part.features.items():
            parts[0].features[key] += value
    return parts[0]


# batches ------------------------------------------------------------------------------------------
def test_tuples_and_lists_give_their_first_element() -> None:
    models, plain = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors()
    expected = run(models, plain).matrix("a", "b")
    labels = torch.arange(16) % 4
    for wrap in (lambda b: (b, labels), lambda b: [b, labels], lambda b: (b,)):
        np.testing.assert_array_equal(run(models, map(wrap, plain)).matrix("a", "b"), expected)


def test_data_loaders() -> None:
    data = zoo.vectors(50, batch=50)[0]
    loader = DataLoader(TensorDataset(data, torch.arange(50) % 3), batch_size=16)
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    result = run(models, loader)
    assert largest_error(result, reference_compare(models, list(data.split(16)))) <= TOLERANCE
    assert result.samples == 48, "the last batch holds two samples"


def test_tokenised_batches_go_in_as_keywords_without_their_labels() -> None:
    batches = zoo.token_batches(48, batch=12)
    seen: list[set[str]] = []

    class Spy(zoo.TokenClassifier):
        def forward(self, **kwargs: torch.Tensor) -> object:
            seen.append(set(kwargs))
            return super().forward(**kwargs)

    model = zoo.seeded(Spy)
    result = run({"a": model}, batches)
    assert all(keys == {"input_ids", "attention_mask"} for keys in seen)
    call = lambda m, b: m(b["input_ids"], b["attention_mask"])  # noqa: E731
    plain = zoo.seeded(zoo.TokenClassifier)
    reference = reference_compare({"a": plain}, batches, call=call)
    assert_complete(result, reference)
    assert largest_error(result, reference) <= TOLERANCE


@pytest.mark.parametrize("kind", [dict, collections.UserDict, zoo.ModelOutput])
def test_masked_token_mean_honours_the_padding(kind: type) -> None:
    model, batches = zoo.seeded(zoo.TokenClassifier), zoo.token_batches(48, batch=12)
    result = run({"a": model}, map(kind, batches), reduce="mean")
    call = lambda m, b: m(b["input_ids"], b["attention_mask"])  # noqa: E731
    reference = reference_of_masked({"a": model}, batches, call)
    assert largest_error(result, reference) <= TOLERANCE
    longer = [
        {
            "input_ids": nn.functional.pad(b["input_ids"], (0, 5)),
            "attention_mask": nn.functional.pad(b["attention_mask"], (0, 5)),
        }
        for b in batches
    ]
    padded = run({"a": model}, longer, reduce="mean")
    np.testing.assert_allclose(padded.matrix("a", "a"), result.matrix("a", "a"), atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 10.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_averaged_in_float32(dtype: torch.dtype, offset: float) -> None:
    """The oracle averages the same rounded activations in float64."""
    models = {"a": zoo.seeded(zoo.Shifted, offset), "b": zoo.seeded(zoo.Shifted, -offset, seed=1)}
    models = {name: model.lin.to(dtype) for name, model in models.items()}
    tokens = [batch.to(dtype) for batch in zoo.tokens(64, length=33, batch=16)]
    reference = reference_compare(models, tokens, rows=lambda t: t.double().mean(1).numpy())
    assert largest_error(run(models, tokens, reduce="mean"), reference) <= TOLERANCE
    models = {"a": zoo.seeded(nn.Conv2d, 3, 9, 3), "b": zoo.seeded(nn.Conv2d, 3, 5, 3, seed=1)}
    for model in models.values():
        nn.init.constant_(model.to(dtype).bias, offset)
    images = [batch.to(dtype) for batch in zoo.images(64, 12, 16)]
    reference = reference_compare(models, images, rows=lambda t: t.double().mean((2, 3)).numpy())
    assert largest_error(run(models, images, reduce="mean"), reference) <= TOLERANCE


@pytest.mark.parametrize("offset", [0.0, 10.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_padding_holds_does_not_count(dtype: torch.dtype, offset: float) -> None:
    models = {"a": zoo.seeded(zoo.Shifted, offset), "b": zoo.seeded(zoo.Shifted, -offset, seed=1)}
    models = {name: model.lin.to(dtype) for name, model in models.items()}
    batches = zoo.masked_batches(64, length=33)
    for batch in batches:
        batch["x"] = batch["x"].to(dtype)
        batch["x"][~batch["attention_mask"]] = torch.nan
    call = lambda model, batch: model(batch["x"])  # noqa: E731
    result = run(models, batches, reduce="mean", forward=call)
    reference = reference_of_masked(models, batches, call)
    assert largest_error(result, reference) <= TOLERANCE


@pytest.mark.parametrize("reduce", ["mean", "cls", "last"])
def test_reductions(reduce: str) -> None:
    pick = {"mean": lambda x: x.mean(1), "cls": lambda x: x[:, 0], "last": lambda x: x[:, -1]}
    model, batches = zoo.encoder(2), zoo.tokens(48, batch=12)
    reference = reference_compare(
        {"a": model}, batches, rows=lambda t: pick[reduce](t.double()).clone().numpy()
    )
    assert largest_error(run({"a": model}, batches, reduce=reduce), reference) <= TOLERANCE


def test_spatial_mean() -> None:
    def rows(tensor: torch.Tensor) -> np.ndarray:
        x = tensor.double().clone()
        return (x.mean((2, 3)) if x.dim() == 4 else x).numpy()

    models, batches = {"a": zoo.resnet18(width=4)}, zoo.images(48, 16, 16)
    reference = reference_compare(models, batches, rows=rows)
    assert largest_error(run(models, batches, reduce="mean"), reference) <= TOLERANCE


def test_a_callable_reduction() -> None:
    models, batches = {"a": zoo.mlp()}, zoo.vectors()
    reference = reference_compare(models, batches, rows=lambda t: t[:, :2].double().numpy())
    assert largest_error(run(models, batches, reduce=lambda x: x[:, :2]), reference) <= TOLERANCE
    with pytest.raises(ValueError, match="reduce='middle' is not known"):
        run(models, batches, reduce="middle")


def test_a_callable_reduction_that_fails_is_blamed_by_name() -> None:
    def halves(x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("no half of it")

    sentence = r'"a", layer "0" failed at batch 1: ReduceError: reduce=halves failed .* no half'
    with pytest.raises(CompareError, match=sentence) as caught:
        run({"a": zoo.mlp()}, zoo.vectors(), reduce=halves)
    assert (caught.value.model, caught.value.layer) == ("a", "0")


@pytest.mark.parametrize(
    ("reduce", "reason"),
    [
        (torch.fft.fft, "complex numbers of it; make real ones"),
        (lambda x: x.numpy(), "a ndarray of it, not a tensor"),
        (lambda x: x.mean(), r"\(\) of a batch of 16 samples"),
    ],
)
def test_a_callable_reduction_to_no_features(reduce: object, reason: str) -> None:
    some = lambda x: reduce(x) if x.shape[1] == 5 else x  # noqa: E731
    result = run({"a": zoo.mlp()}, zoo.vectors(), reduce=some, layers=["0", "4"])
    assert result.reasons("a")[0] is None
    assert re.search(f"reduce= made {reason}", result.reasons("a")[1])


def test_forward() -> None:
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    batches = [{"x": {"deep": b}, "unused": "text"} for b in zoo.vectors()]
    result = run(models, batches, forward=lambda model, batch: model(batch["x"]["deep"]))
    expected = run(models, zoo.vectors())
    np.testing.assert_array_equal(result.matrix("a", "b"), expected.matrix("a", "b"))


def test_a_batch_without_tensors() -> None:
    with pytest.raises((TypeError, CompareError), match="forward="):
        run({"a": zoo.mlp()}, ["text"])


# loaders ------------------------------------------------------------------------------------------
def test_one_shuffled_loader_is_drawn_once_for_all() -> None:
    loader = zoo.CountingLoader(zoo.vectors(64, batch=64)[0], 16)
    model = zoo.mlp(0)
    result = run({"a": model, "b": zoo.mlp(0)}, loader)
    assert loader.drawn == 1
    np.testing.assert_allclose(np.diag(result.matrix("a", "b")), 1.0, atol=1e-5)


def test_one_loader_under_two_names_is_drawn_once() -> None:
    model, data = zoo.mlp(0), zoo.vectors(64, batch=64)[0]
    loader = zoo.CountingLoader(data, 16)
    result = run({"a": model, "b": zoo.mlp(0), "c": model}, dict.fromkeys("abc", loader))
    assert loader.drawn == 1
    np.testing.assert_allclose(np.diag(result.matrix("a", "b")), 1.0, atol=1e-5)
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    batches = list(data.split(16))
    iterator = iter(batches)
    result = run(models, {"a": iterator, "b": iterator})
    assert result.batches == 4
    assert largest_error(result, reference_compare(models, batches)) <= TOLERANCE


def test_two_of_three_models_share_a_loader() -> None:
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1), "c": zoo.mlp(2)}
    shared = zoo.CountingLoader(zoo.vectors(64, batch=64)[0], 16)
    result = run(models, {"a": shared, "b": zoo.vectors(64, seed=1), "c": shared})
    drawn = zoo.CountingLoader(shared.data, 16)
    reference = reference_compare({"a": models["a"], "c": models["c"]}, drawn)
    assert shared.drawn == 1
    assert largest_error(result, reference, [("a", "c")]) <= TOLERANCE


def test_loaders_that_shuffle_apart_are_warned_about() -> None:
    data = TensorDataset(torch.cat(zoo.vectors(48)))

    def loader(seed: int | None = None, generator: torch.Generator | None = None) -> DataLoader:
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
        return DataLoader(data, 16, shuffle=True, generator=generator)

    def warned(a: object, b: object) -> bool:
        return any(
            "random orders of their own" in s
            for s in Stream({"a": a, "b": b}, ["a", "b"], None).warnings()
        )

    one, shared = loader(), torch.Generator()
    assert warned(loader(), loader())
    assert warned(loader(0), loader(1))
    assert warned(loader(0), DataLoader(data, 16)), "one shuffles, the other does not"
    assert warned(loader(generator=shared), loader(generator=shared)), "drawn from in turn"
    assert not warned(loader(0), loader(0))
    assert not warned(one, one)
    assert not warned(DataLoader(data, 16), DataLoader(data, 16))
    assert not Stream(loader(), ["a", "b"], None).warnings()
    model = zoo.mlp()
    alike = run({"a": model, "b": model}, {"a": loader(3), "b": loader(3)})
    np.testing.assert_allclose(np.diag(alike.matrix("a", "b")), 1.0, atol=1e-5)


def test_generators_are_drawn_lazily_and_no_further_than_needed() -> None:
    drawn = []

    def endless() -> object:
        for i in itertools.count():
            drawn.append(i)
            yield torch.randn(8, 8)

    result = run({"a": zoo.mlp()}, endless(), max_batches=3)
    assert result.batches == 3
    assert len(drawn) == 3


def test_the_same_model_under_two_names_and_two_loaders() -> None:
    model = zoo.mlp()
    loaders = {"clean": zoo.vectors(64, seed=0), "other": zoo.vectors(64, seed=1)}
    result = run({"clean": model, "other": model}, loaders)
    separate = {name: reference_compare({name: model}, loaders[name]) for name in loaders}
    reference = separate["clean"]
    reference.features.update(separate["other"].features)
    reference.particles.update(separate["other"].particles)
    assert largest_error(result, reference) <= TOLERANCE
    assert abs(result.matrix("clean", "other").iat[0, 0]) < 0.3


def test_the_same_model_under_two_names_and_one_loader() -> None:
    model = zoo.Counting(zoo.mlp())
    result = run({"a": model, "b": model}, zoo.vectors())
    np.testing.assert_allclose(np.diag(result.matrix("a", "b")), 1.0, atol=1e-6)


def test_loaders_must_agree() -> None:
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    with pytest.raises(CompareError, match="ended after 3 batches") as caught:
        run(models, {"a": zoo.vectors(48), "b": zoo.vectors(64)})
    assert caught.value.result.batches == 3
    with pytest.raises(CompareError, match="different numbers of samples"):
        run(models, {"a": zoo.vectors(48), "b": zoo.vectors(48, batch=8)})
    with pytest.raises(ValueError, match="must have the models' names"):
        run(models, {"a": zoo.vectors(48), "c": zoo.vectors(48)})
    with pytest.raises(TypeError, match="cannot be iterated"):
        run(models, 7)


def test_unpaired_loaders_are_warned_about() -> None:
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    labels = torch.arange(16) % 4
    left = [(b, labels) for b in zoo.vectors()]
    right = [(b, labels.flip(0)) for b in zoo.vectors()]
    assert any("different labels" in s for s in run(models, {"a": left, "b": right}).warnings)
    assert not run(models, {"a": left, "b": left}).warnings


# layers -------------------------------------------------------------------------------------------
def test_ways_to_choose_layers() -> None:
    models, batches = {"a": zoo.resnet18(), "b": zoo.mlp()}, zoo.images()
    models["b"] = nn.Sequential(nn.Flatten(), zoo.seeded(nn.Linear, 768, 6))
    layers = {"a": "layer*.0.conv1", "b": ["1"]}
    result = run(models, batches, layers=layers)
    assert result.layers("a") == [f"layer{i}.0.conv1" for i in range(1, 5)]
    assert result.layers("b") == ["1"]
    convolutions = run(
        {"a": models["a"]}, batches, layers=lambda name, module: isinstance(module, nn.Conv2d)
    )
    assert len(convolutions.layers("a")) == 20


def test_a_list_keeps_its_order_and_values() -> None:
    models, batches = {"a": zoo.mlp(0)}, zoo.vectors()
    chosen = ["4", "0", "2"]
    result = run(models, batches, layers=chosen)
    assert result.layers("a") == chosen
    whole = run(models, batches).matrix("a", "a")
    np.testing.assert_allclose(result.matrix("a", "a"), whole.loc[chosen, chosen], atol=1e-6)


def test_one_call_of_many() -> None:
    model, batches = zoo.seeded(zoo.CalledTwice, times=2), zoo.vectors()
    reference = reference_compare({"a": model}, batches)
    for layers, expected in (
        (["act#2", "head"], ["act#2", "head"]),
        (["act"], ["act#1", "act#2", "act#3"]),
    ):
        result = run({"a": model}, batches, layers=layers)
        assert result.layers("a") == expected
        assert largest_error(result, reference) <= TOLERANCE


def test_an_alias_may_be_asked_for_by_its_own_name() -> None:
    batches, model = zoo.vectors(), zoo.seeded(zoo.Nested)
    result = run({"a": model}, batches, layers=["body.drop", "body"])
    assert result.layers("a") == ["body.drop", "body"]
    np.testing.assert_allclose(result.matrix("a", "a"), 1.0, atol=1e-6)


def test_a_shared_module_by_its_second_name() -> None:
    result = run({"a": zoo.seeded(zoo.SharedModule)}, zoo.vectors(), layers=["again", "head"])
    assert result.layers("a") == ["encode#1", "encode#2", "head"]


# models -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("models", "error", "match"),
    [
        ([zoo.mlp()], TypeError, "mapping"),
        ({}, ValueError, "empty"),
        ({"a": "resnet"}, TypeError, "not a torch.nn.Module"),
        ({"a": []}, ValueError, "empty list"),
    ],
)
def test_models_that_are_none(models: object, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        run(models, zoo.vectors())


@pytest.mark.parametrize(
    ("option", "match"),
    [
        ({"kernel": "cubic"}, "kernel='cubic'"),
        ({"hsic_batch_size": 3}, "at least 4"),
        ({"max_batches": 0}, "max_batches"),
        ({"bandwidth": 0.0, "kernel": "rbf"}, "bandwidth"),
    ],
)
def test_options_that_cannot_work(option: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        run({"a": zoo.mlp()}, zoo.vectors(), **option)


def test_where_a_result_comes_from() -> None:
    data = TensorDataset(torch.cat(zoo.vectors(48)))
    generator = torch.Generator().manual_seed(7)
    loader = DataLoader(data, 16, shuffle=True, generator=generator)
    found = run({"a": zoo.mlp()}, loader, kernel="rbf", hsic_batch_size=8).provenance
    assert found["seeds"] == [7]
    assert found["torch"] == torch.__version__
    assert (found["kernel"], found["hsic_batch_size"], found["dtype"]) == ("rbf", 8, "float32")
    assert len(found["sigma"]) == len(list(zoo.mlp()))
    assert min(found["sigma"]) > 0
    assert run({"a": zoo.mlp()}, zoo.vectors()).provenance["seeds"] is None


def test_loaders_that_shuffle_apart_are_in_the_warnings() -> None:
    data = torch.utils.data.TensorDataset(torch.randn(64, 8))
    loaders = {
        name: torch.utils.data.DataLoader(data, batch_size=16, shuffle=True) for name in "ab"
    }
    result = run({"a": zoo.mlp(0), "b": zoo.mlp(1)}, loaders)
    assert any("random orders of their own" in sentence for sentence in result.warnings)


def test_models_that_need_gradients_in_their_forward_pass() -> None:
    class Force(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.energy = nn.Linear(8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                energy = torch.tanh(self.energy(x)).sum()
                (force,) = torch.autograd.grad(energy, x)
            return force

    models = {str(seed): zoo.seeded(Force, seed=seed) for seed in range(2)}
    batches = zoo.vectors()
    assert largest_error(run(models, batches), reference_compare(models, batches)) <= TOLERANCE
