"""How a batch becomes a call, on signatures and batches as they are met; never a silent guess."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import zoo
from checks import TOLERANCE, largest_error, run
from oracles import reference_compare
from torch import Tensor, nn

from cka_widget.engine.calls.calls import as_call, takes
from cka_widget.engine.errors import CompareError
from cka_widget.introspection import introspect

N = 16


def batches(*makes: Any, number: int = 3) -> list[tuple[Any, ...]]:
    return [tuple(make() for make in makes) for _ in range(number)]


def floats(*shape: int) -> Any:
    return lambda: torch.randn(N, *shape)


def classes() -> Tensor:
    return torch.randint(0, 3, (N,))


def steps() -> Tensor:
    return torch.randint(1, 9, (N,))


def holds(found: Any, models: Any, data: list[Any], call: Any) -> None:
    """The result is that of the float64 oracle for this call."""
    assert largest_error(found, reference_compare(models, data, call=call)) <= TOLERANCE


class Lengths(nn.Module):
    """Sums the steps that count."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        z = self.embed(x)
        if lengths is not None:
            z = z * (torch.arange(z.shape[1]) < lengths[:, None])[..., None]
        return self.head(z.sum(1))


class NeedsLengths(Lengths):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return super().forward(x, lengths)


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.arm = nn.Linear(6, 8)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.arm(a) - self.arm(b)


class Triplet(Siamese):
    def forward(self, a: Tensor, p: Tensor, n: Tensor) -> Tensor:
        return self.arm(a) - self.arm(p) * self.arm(n)


class Both(Siamese):
    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return self.arm(pair[0]) - self.arm(pair[1])


class Teacher(nn.Module):
    """A decoder whose target is an input."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(6, 8)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return self.lin(x) + self.lin(target)


class Image(nn.Module):
    """As those of transformers: labels are optional, and stand behind other parameters."""

    main_input_name = "pixel_values"

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(6, 8)
        self.seen: list[bool] = []

    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | None = None,
        head_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        self.seen.append(bool_masked_pos is None and head_mask is None and labels is None)
        return self.lin(pixel_values)


# parameters without a default ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "makes", "call"),
    [
        (Siamese, (floats(6), floats(6), classes), lambda m, b: m(b[0], b[1])),
        (Siamese, (floats(6), floats(6)), lambda m, b: m(b[0], b[1])),
        (Siamese, (lambda: [torch.randn(N, 6), torch.randn(N, 6)], classes), lambda m, b: m(*b[0])),
        (Both, (lambda: (torch.randn(N, 6), torch.randn(N, 6)), classes), lambda m, b: m(b[0])),
        (Triplet, (floats(6), floats(6), floats(6), classes), lambda m, b: m(*b[:3])),
        (Triplet, (floats(6), floats(6), floats(6)), lambda m, b: m(*b)),
        (Triplet, (lambda: [torch.randn(N, 6)] * 3, classes), lambda m, b: m(*b[0])),
        (NeedsLengths, (floats(9, 6), steps), lambda m, b: m(*b)),
        (Teacher, (floats(6), floats(6)), lambda m, b: m(*b)),
        (lambda: nn.Linear(6, 8), (floats(6), classes), lambda m, b: m(b[0])),
        (lambda: nn.Linear(6, 8), (floats(6), floats(3)), lambda m, b: m(b[0])),
        (
            lambda: nn.Linear(6, 8),
            (floats(6), classes, lambda: {"id": torch.arange(N), "path": ["a"] * N}),
            lambda m, b: m(b[0]),
        ),
        (
            lambda: nn.Linear(6, 8),
            (floats(6), lambda: None, lambda: 0.5, lambda: ["x"] * N),
            lambda m, b: m(b[0]),
        ),
    ],
)
@pytest.mark.parametrize("container", [tuple, list])
def test_what_has_no_default_is_passed(kind: Any, makes: Any, call: Any, container: type) -> None:
    models, data = {"a": zoo.seeded(kind), "b": zoo.seeded(kind, seed=1)}, batches(*makes)
    result = run(models, [container(b) for b in data])
    assert result.samples == 3 * N
    assert not result.warnings
    holds(result, models, data, call)


@pytest.mark.parametrize("key", ["target", "targets", "labels", "label_ids"])
def test_a_label_key_that_the_model_needs_is_passed(key: str) -> None:
    source = f"class M(Base):\n    def forward(self, x, {key}): return super().forward(x, {key})"
    scope: dict[str, Any] = {"Base": Teacher}
    exec(source, scope)
    models = {"a": zoo.seeded(scope["M"])}
    data = [{"x": x, key: y} for x, y in batches(floats(6), floats(6))]
    result = run(models, data)
    assert not result.warnings
    holds(result, models, data, lambda m, b: m(b["x"], b[key]))


# parameters with a default ------------------------------------------------------------------------
def optional(*names: str) -> nn.Module:
    """A model of x with further parameters, all optional."""
    given = "".join(f", {name}=None" for name in names)
    scope: dict[str, Any] = {"nn": nn}
    exec(
        "class Optional(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.lin = nn.Linear(6, 8)\n"
        f"    def forward(self, x{given}):\n"
        f"        assert all(v is None for v in [{', '.join(names)}]); return self.lin(x)",
        scope,
    )
    return zoo.seeded(scope["Optional"])


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("lengths", steps),
        ("x_len", steps),
        ("seqlens", steps),
        ("len_a", steps),
        ("inputLengths", steps),
        ("position_ids", steps),
        ("timestep", steps),
        ("offsets", steps),
        ("mask", lambda: torch.ones(N, 9).bool()),
        ("mask", lambda: torch.ones(N).bool()),
        ("src_key_padding_mask", lambda: torch.ones(N, 9).bool()),
        ("attention_mask", lambda: torch.ones(N, 9).long()),
        ("target", floats(6)),
        ("y", floats(6)),
        ("tgt", lambda: torch.randint(0, 9, (N, 7))),
        ("state", lambda: (torch.randn(N, 3), torch.randn(N, 3))),
        ("scale", lambda: torch.tensor(2.0)),
        ("texts", lambda: ["a"] * N),
    ],
)
def test_what_may_be_an_input_is_left_out_with_one_warning(name: str, make: Any) -> None:
    data, model = batches(floats(6), make), optional(name)
    result = run({"a": [model, optional(name)], "b": model}, data)
    assert len(result.warnings) == 2
    remedy = f"forward=lambda model, batch: model(batch[0], {name}=batch[1])"
    for model_name, sentence in zip("ab", result.warnings, strict=True):
        assert sentence.startswith(f'Model "{model_name}" was called without batch[1]')
        assert f'"{name}"' in sentence
        assert remedy in sentence


@pytest.mark.parametrize(
    ("names", "makes"),
    [
        (("labels",), (classes,)),
        (("targets",), (classes,)),
        (("y",), (classes,)),
        (("labels",), (floats(3),)),
        (("head_mask", "labels"), (classes,)),
        (("head_mask", "labels"), (lambda: torch.randint(0, 2, (N,)),)),
        (("output_attentions",), (classes,)),
        (("past_key_values",), (classes,)),
        (("token_type_ids", "labels"), (classes,)),
        (("y",), (lambda: classes()[:, None],)),
        (("y",), (lambda: ["cat", "dog"] * (N // 2),)),
        (("y", "meta"), (classes, lambda: {"path": ["a"] * N})),
        (("y", "z"), (classes, lambda: None)),
    ],
)
def test_class_labels_are_left_out_silently(names: Any, makes: Any) -> None:
    assert not run({"a": optional(*names)}, batches(floats(6), *makes)).warnings


def test_images_and_labels_into_a_model_as_those_of_transformers() -> None:
    model = zoo.seeded(Image)
    result = run({"a": model}, batches(floats(6), classes))
    assert not result.warnings
    assert all(model.seen)
    mapped = [{"pixel_values": x, "labels": y} for x, y in batches(floats(6), classes)]
    assert not run({"a": model}, mapped).warnings
    assert all(model.seen)


def test_the_remedy_of_the_warning_works() -> None:
    models, data = {"a": zoo.seeded(Lengths)}, batches(floats(9, 6), steps)
    (sentence,) = run(models, data).warnings
    remedy = sentence.split("forward=")[1].rstrip(".")
    result = run(models, data, forward=eval(remedy))
    assert not result.warnings
    holds(result, models, data, lambda m, b: m(b[0], b[1]))


def test_one_number_a_sample_may_be_a_step_though_there_are_labels() -> None:
    (sentence,) = run({"a": optional("timestep", "labels")}, batches(floats(6), steps)).warnings
    assert "model(batch[0], timestep=batch[1])" in sentence


def test_several_inputs_left_out_are_one_warning() -> None:
    data = batches(floats(6), floats(2), classes, floats(3))
    (sentence,) = run({"a": optional("u", "y", "v")}, data).warnings
    assert "without batch[1] and batch[3]" in sentence
    assert "if they are inputs" in sentence
    assert "model(batch[0], u=batch[1], v=batch[3])" in sentence


@pytest.mark.parametrize(
    ("key", "make", "warned"),
    [
        ("target", floats(3), True),
        ("target", classes, False),
        ("labels", classes, False),
        ("labels", floats(3), False),
        ("targets", lambda: torch.zeros(N, 4, 4).long(), True),
    ],
)
def test_a_label_key_with_a_default(key: str, make: Any, warned: bool) -> None:
    data = [{"x": x, key: y} for x, y in batches(floats(6), make)]
    found = run({"a": optional(key)}, data).warnings
    assert len(found) == warned
    assert all(
        f'"{key}"' in s and "forward=lambda model, batch: model(**batch)" in s for s in found
    )


# signatures ---------------------------------------------------------------------------------------
class Starred(nn.Module):
    """As wrappers are."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


def patched(kind: str) -> nn.Module:
    """A model whose forward was replaced on the module itself."""
    model = zoo.seeded(Siamese)
    old = model.forward
    if kind == "partial":
        model.forward = functools.partial(Siamese.forward, model)
    elif kind == "lambda":
        model.forward = lambda a, b: old(a, b)
    elif kind == "wraps":
        model.forward = functools.wraps(old)(lambda *args, **kwargs: old(*args, **kwargs))
    elif kind == "bound":
        model.forward = functools.partial(old, b=torch.ones(N, 6))
    return model


@pytest.mark.parametrize("kind", ["partial", "lambda", "wraps"])
def test_a_forward_replaced_on_the_module(kind: str) -> None:
    data = batches(floats(6), floats(6), classes)
    result = run({"a": patched(kind)}, data)
    holds(result, {"a": patched("no")}, data, lambda m, b: m(b[0], b[1]))


def test_an_argument_bound_by_partial_is_no_longer_needed() -> None:
    call = as_call((torch.ones(N, 6), classes()), patched("bound"))
    assert len(call.args) == 1
    assert not call.kwargs


def test_wrappers_that_take_anything() -> None:
    model = Starred(zoo.seeded(nn.Linear, 6, 8))
    assert not run({"a": model}, batches(floats(6), classes)).warnings
    (sentence,) = run({"a": model}, batches(floats(6), floats(3))).warnings
    assert "without batch[1]" in sentence
    assert "model(batch[0], batch[1])" in sentence
    with pytest.raises(CompareError, match=r"missing 1 required .* forward=lambda model, batch"):
        run({"a": Starred(zoo.seeded(Siamese))}, batches(floats(6), floats(6)), layers=["inner"])


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrapped_models_are_read_inside(wrap: Any) -> None:
    data = batches(floats(6), floats(6), classes)
    result = run({"a": wrap(zoo.seeded(Siamese))}, data, device="cpu")
    holds(result, {"a": zoo.seeded(Siamese)}, data, lambda m, b: m(b[0], b[1]))


def test_stacked_and_mapped_particles() -> None:
    particles = [zoo.seeded(Siamese, seed=s) for s in range(3)]
    data = batches(floats(6), floats(6), classes)
    expected = run({"a": particles}, data, forward=lambda m, b: m(b[0], b[1]))
    found = run({"a": particles}, data, vmap=True)
    np.testing.assert_allclose(found.matrix("a", "a"), expected.matrix("a", "a"), atol=1e-5)


def test_keyword_only_and_positional_only_parameters() -> None:
    class Odd(nn.Module):
        def forward(self, x, /, y, *, z, w=1):
            return x

    found = takes(Odd())
    assert found.positional == ("x", "y")
    assert found.required == {"x", "y", "z"}
    assert found.keywords == {"y", "z", "w"}
    assert not found.any_position


# batches ------------------------------------------------------------------------------------------
class Sample(NamedTuple):
    y: Tensor
    x: Tensor


def test_named_tuples_go_in_by_name_where_the_names_are_the_parameters() -> None:
    models, data = {"a": optional()}, batches(classes, floats(6))
    result = run(models, [Sample(*b) for b in data])
    holds(result, models, data, lambda m, b: m(b[1]))
    other = {"a": zoo.seeded(nn.Sequential, zoo.seeded(nn.Linear, 6, 8))}
    flipped = [b[::-1] for b in data]
    holds(run(other, [Picture(*b) for b in flipped]), other, flipped, lambda m, b: m(b[0]))


class Picture(NamedTuple):
    image: Tensor
    label: Tensor


@pytest.mark.parametrize("extra", [classes, lambda: ["a"] * N, lambda: "text", lambda: 3])
def test_what_stands_beside_the_inputs_of_a_mapping(extra: Any) -> None:
    models = {"a": optional()}
    data = [{"x": x, "extra": e} for x, e in batches(floats(6), extra)]
    holds(run(models, data), models, data, lambda m, b: m(b["x"]))


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        (optional, {"image": torch.ones(N, 6)}, 'no "image" of the batch; .*model.batch."image"'),
        (optional, {"x": torch.ones(N, 6), "z": torch.ones(N, 2)}, 'no "z" of the batch.*forward='),
        (optional, [torch.ones(6)] * 8, "list of 8 single samples.*stack.*collate_fn.*forward="),
        (optional, (torch.ones(3, 6, 6),) * 4, "list of 4 single samples"),
        (optional, [torch.ones(3, 6, k) for k in (4, 5, 6)], "list of 3 single samples"),
        (optional, [(torch.ones(6), 1)] * 8, "list of 8 single samples"),
        (optional, [(torch.ones(6), torch.tensor(1))] * 4, "list of 4 single samples"),
        (optional, [{"x": torch.ones(6)}] * 4, "list of 4 single samples"),
        (
            optional,
            ([torch.ones(3, 6, 6)] * 8, [{}] * 8),
            "tensors, one a sample.*forward=",
        ),
        (optional, ([torch.ones(3, 6, 6)] * 2, [{}] * 2), "list of tensors, one a sample"),
        (optional, (torch.ones(3, 6), 7), "looks like one sample.*DataLoader"),
        (optional, (torch.ones(3, 6), torch.tensor(7)), "looks like one sample"),
        (optional, np.ones((N, 6), np.float32), "numpy arrays.*torch.as_tensor.*forward="),
        (optional, (np.ones((N, 6)), torch.ones(N)), "numpy arrays"),
        (optional, {"x": np.ones((N, 6)), "labels": torch.ones(N)}, "numpy arrays"),
        (optional, ["a text"] * N, "texts.*tokenizer.*forward="),
        (optional, "text", "texts.*forward="),
        (optional, None, "batch of type NoneType.*forward="),
        (
            Siamese,
            ((torch.ones(N, 6), torch.ones(N, 6)), torch.ones(N)),
            "read as .*forward=",
        ),
    ],
)
def test_batches_that_are_refused(kind: Any, data: Any, words: str) -> None:
    with pytest.raises(TypeError, match=f'model "a": .*{words}'):
        run({"a": kind()}, [data])


def test_images_that_are_no_tensors() -> None:
    image = pytest.importorskip("PIL.Image").new("RGB", (8, 8))
    with pytest.raises(TypeError, match=r"PIL images.*ToTensor.*forward="):
        run({"a": optional()}, [([image] * N, classes())])


def test_two_tensors_of_one_shape_are_an_input_and_its_target() -> None:
    models, data = {"a": optional()}, batches(floats(6), floats(6))
    result = run(models, [list(b) for b in data])
    holds(result, models, data, lambda m, b: m(b[0]))


# what fails is told with the remedy ---------------------------------------------------------------
class Seq2Seq(nn.Module):
    def __init__(self, needs: bool) -> None:
        super().__init__()
        self.lin, self.needs = nn.Linear(6, 8), needs

    def forward(
        self,
        input_ids: Tensor,
        decoder_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        if labels is not None:
            decoder_input_ids = labels
        if decoder_input_ids is None and self.needs:
            raise ValueError(
                "You have to specify either decoder_input_ids or decoder_inputs_embeds"
            )
        return self.lin(input_ids)


@pytest.mark.parametrize("key", ["inputs", "input_ids"])
def test_a_missing_argument_is_told_with_forward(key: str) -> None:
    class Decoder(Seq2Seq):
        def forward(self, input_ids, decoder_input_ids, labels=None):
            return self.lin(input_ids)

    model = Decoder(True)
    data = [{key: torch.randn(N, 6), "labels": torch.zeros(N, 4).long()}]
    words = "decoder inputs, labels.*forward=lambda" if key == "input_ids" else "inputs"
    with pytest.raises((CompareError, TypeError), match=words) as caught:
        run({"a": model}, data)
    assert "forward=" in str(caught.value)
    assert "forward=" in introspect(model, data[0]).error


def test_labels_that_would_be_the_decoders_inputs() -> None:
    data = [{"input_ids": torch.randn(N, 6), "labels": torch.zeros(N, 4).long()} for _ in range(3)]
    words = (
        'decoder_input_ids .*"labels" of it was left out.*forward=lambda model, batch: model.*batch'
    )
    with pytest.raises(CompareError, match=words):
        run({"a": Seq2Seq(True)}, data)
    (sentence,) = run({"a": Seq2Seq(False)}, data).warnings
    assert '"labels"' in sentence
    assert "forward=lambda model, batch: model(**batch)" in sentence


def test_a_model_that_reads_labels_left_out() -> None:
    class Loss(nn.Module):
        def forward(self, x, labels=None):
            return x * labels.float()[:, None]

    with pytest.raises(CompareError, match=r"NoneType.*batch\[1\] of it.*labels=batch\[1\]"):
        run({"a": Loss()}, batches(floats(6), classes))


def test_an_input_left_out_is_told_where_the_model_fails_without_it() -> None:
    data = [(torch.randint(0, 9, (40,)), torch.arange(0, 40, 4))]
    with pytest.raises(CompareError, match=r"got None.*forward=.*offsets=batch\[1\]\)"):
        run({"a": nn.EmbeddingBag(9, 4)}, data, samples=lambda batch: len(batch[1]))
    with pytest.raises(CompareError, match=r"'key' and 'value'.*model\(batch, \.\.\.\)"):
        run({"a": nn.MultiheadAttention(6, 2, batch_first=True)}, [torch.randn(N, 5, 6)])


def test_an_error_within_the_model_has_no_such_remedy() -> None:
    with pytest.raises(CompareError) as caught:
        run({"a": nn.Linear(5, 2)}, batches(floats(6), classes))
    assert "forward=" not in str(caught.value)


def test_an_explorers_look_does_not_fail_where_a_run_would_warn() -> None:
    batch = (torch.randn(N, 9, 6), steps())
    tree = introspect(zoo.seeded(Lengths), batch)
    assert tree.ran
    assert introspect(optional(), [torch.ones(6)] * 8).error.count("forward=") == 1
