"""Every cell against float64 clones, where libraries are silently wrong and where not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import zoo
from checks import TOLERANCE, assert_complete, check, largest_error, run
from oracles import reference_compare
from torch import nn


@pytest.mark.parametrize("hsic_batch_size", [None, 8])
def test_all_layers_of_resnets_with_in_place_relus(hsic_batch_size: int | None) -> None:
    models = {"18": zoo.resnet18(), "34": zoo.resnet34()}
    batches = zoo.images(64, 16, 16)
    reference = reference_compare(models, batches)
    result = run(models, batches, hsic_batch_size=hsic_batch_size)
    assert_complete(result, reference)
    assert len(result.layers("18")) >= 55
    assert len(result.layers("34")) >= 100
    error = largest_error(result, reference, [("18", "34")], block=hsic_batch_size)
    assert error <= TOLERANCE


def test_against_itself_and_transposed() -> None:
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1, depth=3)}, zoo.vectors()
    result = check(models, batches)
    np.testing.assert_array_equal(result.matrix("a", "b"), result.matrix("b", "a").T)
    np.testing.assert_allclose(np.diag(result.matrix("a", "a")), 1.0, atol=1e-6)


def test_in_place_operations() -> None:
    result = check({"a": zoo.seeded(zoo.InPlaceChain)}, zoo.vectors())
    assert result.layers("a") == ["lin", "bn", "relu", "out", "(output)"]
    assert result.matrix("a", "a").loc["bn", "relu"] < 0.99


def test_call_order_unlike_registration_order() -> None:
    result = check({"a": zoo.seeded(zoo.Backwards)}, zoo.vectors())
    assert result.layers("a") == ["first", "second", "head"]


def test_a_module_called_several_times_gives_a_row_a_call() -> None:
    result = check({"a": zoo.seeded(zoo.CalledTwice, times=2)}, zoo.vectors())
    labels = ["stem", "act#1", "step#1", "act#2", "step#2", "act#3", "head"]
    assert result.layers("a") == labels


def test_a_module_under_two_names() -> None:
    result = check({"a": zoo.seeded(zoo.SharedModule)}, zoo.vectors())
    assert result.layers("a") == ["encode#1", "encode#2", "head"]


def test_containers_and_their_last_children_are_one_row() -> None:
    result = check({"a": zoo.seeded(zoo.Nested)}, zoo.vectors())
    assert result.layers("a") == ["body.inner.0", "body", "tail.0", "tail", "(output)"]


def test_a_module_that_hands_its_input_on_does_not_rename_it() -> None:
    model = nn.Sequential(
        zoo.seeded(nn.Linear, 8, 6), nn.Dropout(0.5), nn.Identity(), nn.ReLU(inplace=True)
    )
    result = check({"a": model}, zoo.vectors())
    assert result.layers("a") == ["0", "3"]
    assert result.particles("a", "a", row="1", col="3").shape == (1, 1), "known by its alias"


def test_layers_that_never_ran_are_no_rows() -> None:
    result = check({"a": zoo.seeded(zoo.NeverCalled)}, zoo.vectors())
    assert result.layers("a") == ["steps.0", "steps.1", "steps.2", "head"]


def test_deep_nests_are_one_row() -> None:
    assert check({"a": zoo.Deep(60)}, zoo.vectors()).layers("a") == ["nest"]


@pytest.mark.parametrize("mean", [0.0, 3.0, 10.0, 100.0, 1000.0])
def test_feature_means_far_from_zero(mean: float) -> None:
    models = {"a": zoo.seeded(zoo.Shifted, mean), "b": zoo.seeded(zoo.Shifted, -mean, seed=1)}
    check(models, zoo.vectors(256, batch=64))


def test_a_mean_that_appears_after_the_first_batch() -> None:
    batches = zoo.vectors(64, batch=16)
    batches[2:] = [batch + 300.0 for batch in batches[2:]]
    check({"a": zoo.seeded(zoo.CalledTwice), "b": zoo.mlp(1)}, batches)


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1e6, 1e15])
def test_scales_far_from_one(scale: float) -> None:
    model = nn.Sequential(zoo.seeded(nn.Linear, 8, 6), zoo.Returns(lambda x: x * scale))
    result = check({"a": model, "b": zoo.mlp(1)}, zoo.vectors())
    assert result.matrix("a", "a").iat[0, 1] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precisions(dtype: torch.dtype) -> None:
    """The oracle is fed the same rounded activations."""
    models = {"a": zoo.mlp(0).to(dtype), "b": zoo.seeded(zoo.Shifted, 10.0).to(dtype)}
    check(models, [batch.to(dtype) for batch in zoo.vectors(64, batch=32)])


def test_a_half_precision_resnet() -> None:
    models = {"a": zoo.resnet18(0, width=4).bfloat16(), "b": zoo.resnet18(1, width=4).bfloat16()}
    check(models, [batch.bfloat16() for batch in zoo.images(32, 8, 16)])


def test_models_of_different_precision() -> None:
    models = {"a": zoo.mlp(0), "b": zoo.mlp(0).double()}
    call = lambda model, batch: model(batch.to(next(model.parameters()).dtype))  # noqa: E731
    result = check(models, zoo.vectors(), forward=call)
    np.testing.assert_allclose(np.diag(result.matrix("a", "b")), 1.0, atol=1e-4)


@pytest.mark.parametrize("last", [1, 2, 3])
def test_last_batches_of_few_samples(last: int) -> None:
    batches = list(zoo.vectors(32 + last, batch=32 + last)[0].split(16))
    assert len(batches[-1]) == last
    result = check({"a": zoo.mlp(0), "b": zoo.mlp(1)}, batches)
    assert result.samples == 32
    assert result.blocks == 2


def test_batches_of_unequal_size_weigh_by_their_samples() -> None:
    data = zoo.vectors(60, batch=60)[0]
    check({"a": zoo.mlp(0), "b": zoo.mlp(1)}, list(data.split([30, 8, 5, 17])))


@pytest.mark.parametrize("size", [4, 5, 7, 16, 100])
def test_hsic_batches(size: int) -> None:
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors(75, batch=32)
    result = run(models, batches, hsic_batch_size=size)
    assert largest_error(result, reference_compare(models, batches), block=size) <= TOLERANCE
    assert result.samples == 75


def test_biased_on_request() -> None:
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors()
    result = run(models, batches, unbiased=False)
    assert largest_error(result, reference_compare(models, batches), unbiased=False) <= TOLERANCE
    assert (result.matrix("a", "b") > run(models, batches).matrix("a", "b")).all(axis=None)


def test_every_type_of_output() -> None:
    result = check({"a": zoo.seeded(zoo.Outputs)}, zoo.vectors())
    names = ["lin", "tuple", "none_first", "dict", "dataclass", "model_output", "(output)"]
    assert result.layers("a") == names


def test_tokens_and_attention() -> None:
    models = {"a": zoo.encoder(2), "b": zoo.seeded(zoo.Attention)}
    result = check(models, zoo.tokens(48, batch=12))
    assert "attention" in result.layers("b")
    assert "layers.1" in result.layers("a") or "layers" in result.layers("a")


def test_tokens_are_features_not_samples() -> None:
    batches = zoo.tokens(48, batch=12)
    result = run({"a": zoo.seeded(zoo.Attention)}, batches)
    assert result.samples == 48


def turned(time: int) -> object:
    """Rows of the oracle, for outputs known to have `time` steps first."""

    def rows(tensor: torch.Tensor) -> np.ndarray:
        x = tensor.double()
        x = x.transpose(0, 1) if x.dim() == 3 and x.shape[0] == time else x
        return x.flatten(1).clone().numpy()

    return rows


def test_recurrent_layers_batch_first_and_time_first() -> None:
    model = zoo.seeded(zoo.Recurrent)
    batches = zoo.tokens(48, length=7, batch=12)
    reference = reference_compare({"a": model}, batches, rows=turned(7))
    result = run({"a": model}, batches)
    assert result.layers("a") == ["first", "second", "head"]
    assert largest_error(result, reference) <= TOLERANCE


def test_layers_after_a_time_first_one() -> None:
    model, batches = zoo.seeded(zoo.TimeFirst), zoo.tokens(48, length=7, batch=12)
    reference = reference_compare({"a": model}, batches, rows=turned(7))
    result = run({"a": model}, batches)
    assert result.layers("a") == ["rnn", "mix", "attention", "(output)"]
    assert largest_error(result, reference) <= TOLERANCE


def test_packed_sequences_are_padded_again() -> None:
    model, batches = zoo.seeded(zoo.Packed), zoo.tokens(48, length=7, batch=12)

    def pick(output: object) -> torch.Tensor:
        output = output[0] if isinstance(output, tuple) else output
        if isinstance(output, nn.utils.rnn.PackedSequence):
            output = nn.utils.rnn.pad_packed_sequence(output, batch_first=True)[0]
        return output

    reference = reference_compare({"a": model}, batches, pick=pick)
    result = run({"a": model}, batches)
    assert result.layers("a") == ["rnn", "head"]
    assert largest_error(result, reference) <= TOLERANCE


def picked(output: object) -> torch.Tensor:
    """For the oracle: the first of a tuple, with zeros where a nested tensor has no step."""
    tensor = output[0] if isinstance(output, tuple) else output
    if tensor.is_nested:
        tensor = nn.utils.rnn.pad_sequence(list(tensor.unbind()), batch_first=True)
    return tensor


NESTED = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")


@NESTED
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors(layout: torch.layout) -> None:
    def nest(x: torch.Tensor) -> torch.Tensor:
        return torch.nested.as_nested_tensor(
            [row[: 2 + i % 5] for i, row in enumerate(x)], layout=layout
        )

    model = nn.Sequential(zoo.seeded(nn.Linear, 8, 6), zoo.Returns(nest))
    batches = zoo.tokens(48, length=7, batch=16)
    reference = reference_compare({"a": model}, batches, pick=picked)
    assert largest_error(run({"a": model}, batches), reference) <= TOLERANCE
    means = reference_compare(
        {"a": model},
        batches,
        pick=lambda y: picked(y) if not y.is_nested else torch.stack([t.mean(0) for t in y]),
        rows=lambda t: (t.double().mean(1) if t.dim() == 3 else t.double()).numpy(),
    )
    assert largest_error(run({"a": model}, batches, reduce="mean"), means) <= TOLERANCE


@NESTED
def test_a_transformer_that_skips_its_padding() -> None:
    """With a mask, torch's encoder makes nested tensors of all that runs within it."""
    model, batches = zoo.seeded(zoo.MaskedEncoder).eval(), zoo.masked_batches()
    call = lambda m, b: m(**b)  # noqa: E731
    reference = reference_compare({"a": model}, batches, call=call, pick=picked)
    result = run({"a": model}, batches)
    assert {"encoder.layers.0", "encoder.layers.1.linear1"} <= set(result.layers("a"))
    assert_complete(result, reference)
    assert largest_error(result, reference) <= TOLERANCE
    averaged = run({"a": model}, batches, reduce="mean")
    plain = zoo.seeded(zoo.MaskedEncoder, nested=False).eval()
    expected = run({"a": plain}, batches, reduce="mean")
    for layer in ("encoder.layers.0.linear2", "encoder.layers.1", "encoder"):
        found = averaged.particles("a", "a", row=layer, col="head").iat[0, 0]
        other = expected.particles("a", "a", row=layer, col="head").iat[0, 0]
        assert found == pytest.approx(other, abs=TOLERANCE), layer


@pytest.mark.parametrize("reduce", ["mean", "last"])
def test_packed_sequences_are_reduced_without_their_padding(reduce: str) -> None:
    pick = {"mean": lambda x: x.mean(0), "last": lambda x: x[-1]}[reduce]
    model, batches = zoo.seeded(zoo.Packed), zoo.tokens(48, length=7, batch=12)

    def rows(output: object) -> torch.Tensor:
        if not isinstance(output, tuple):
            return output
        padded, lengths = nn.utils.rnn.pad_packed_sequence(output[0], batch_first=True)
        return torch.stack([pick(x[:n]) for x, n in zip(padded, lengths, strict=True)])

    reference = reference_compare({"a": model}, batches, pick=rows)
    result = run({"a": model}, batches, reduce=reduce)
    assert result.layers("a") == ["rnn", "head"]
    assert largest_error(result, reference) <= TOLERANCE


def test_a_hugging_face_model() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16,
    )  # fmt: skip
    model = zoo.seeded(transformers.BertModel, config).eval()
    batches = zoo.token_batches(48, batch=12)
    call = lambda m, b: m(b["input_ids"], attention_mask=b["attention_mask"])  # noqa: E731
    reference = reference_compare({"a": model}, batches, call=call)
    assert largest_error(run({"a": model}, batches), reference) <= TOLERANCE


def test_memory_layouts() -> None:
    model = zoo.seeded(zoo.Layouts)
    result = check({"a": model}, zoo.images(48, 8, 16))
    assert set(result.layers("a")) >= {"last", "turned", "strided", "flipped", "expanded"}


def test_a_channels_last_model() -> None:
    plain, turned = zoo.resnet18(0, width=4), zoo.resnet18(0, width=4)
    turned.to(memory_format=torch.channels_last)
    batches = [b.contiguous(memory_format=torch.channels_last) for b in zoo.images(32, 8, 16)]
    result = check({"a": plain, "b": turned}, batches)
    np.testing.assert_allclose(np.diag(result.matrix("a", "b")), 1.0, atol=1e-4)


def test_three_models_are_one_table() -> None:
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1, depth=1), "c": zoo.mlp(2, depth=3)}
    result = check(models, zoo.vectors())
    for a, b in itertools.permutations(models, 2):
        alone = run({a: models[a], b: models[b]}, zoo.vectors())
        np.testing.assert_allclose(result.matrix(a, b), alone.matrix(a, b), atol=1e-5)


def test_values_are_not_clamped() -> None:
    """Unrelated features have an unbiased CKA around zero, on both sides of it."""
    layers = {
        f"{i}": nn.Sequential(
            zoo.Returns(lambda x, i=i: torch.sin(1e3 * (i + 1) * x + i)[:, i : i + 1])
        )
        for i in range(8)
    }
    result = run(layers, zoo.vectors(64, batch=16))
    off = [result.matrix(a, b).iat[0, 0] for a, b in itertools.combinations(layers, 2)]
    assert min(off) < 0 < max(off)


def test_as_many_steps_as_samples_are_not_guessed() -> None:
    """After a module with `batch_first=False`, a square output could be read either way; shorter
    sequences give the same.
    """

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(8, 6)
            self.head = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.rnn(x.transpose(0, 1))[0])
            return out[-1]

    model, batches = zoo.seeded(Steps), [torch.randn(16, 16, 8) for _ in range(3)]
    result = run({"a": model}, batches, layers=["rnn", "head"])
    turn = lambda t: t.double().transpose(0, 1).flatten(1).numpy()  # noqa: E731
    names = {"a": ["rnn", "head"]}
    reference = reference_compare({"a": model}, batches, names, rows=turn)
    assert largest_error(result, reference) <= TOLERANCE
    assert not result.warnings


def test_a_square_last_batch_is_read_as_those_before_it() -> None:
    model = zoo.seeded(zoo.TimeFirst)
    batches = list(zoo.tokens(44, length=12, batch=44)[0].split(16))
    assert len(batches[-1]) == 12, "as many samples as steps"
    reference = reference_compare({"a": model}, batches, rows=turned(12))
    result = run({"a": model}, batches)
    assert result.reasons("a") == [None] * len(result.layers("a"))
    assert largest_error(result, reference) <= TOLERANCE
    assert result.samples == 44
