"""Grams in TF32 and bfloat16: how far scores are off, and what has which precision."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
import zoo
from checks import largest_error, run
from oracles import reference_compare
from torch import Tensor, nn

from cka_widget.engine.compare import iter_compare
from cka_widget.engine.functional import cka
from cka_widget.engine.grams import accelerator, gram, self_product

LARGEST = {"highest": 1e-5, "high": 3e-4, "medium": 3e-3}


def as_tf32(x: Tensor) -> Tensor:
    """Float32 rounded to ten bits of mantissa, to nearest even, as NVIDIA's units read it."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def pair(mean: float) -> dict[str, nn.Module]:
    return {str(seed): zoo.seeded(zoo.Shifted, mean, seed=seed) for seed in range(2)}


def error(models: dict[str, nn.Module], batches: list[Tensor], **options: Any) -> float:
    return largest_error(run(models, batches, **options), reference_compare(models, batches))


@pytest.mark.parametrize("mean", [0.0, 3.0, 100.0])
@pytest.mark.parametrize("precision", accelerator.PRECISIONS)
def test_errors_hardly_grow_with_the_mean(
    monkeypatch: pytest.MonkeyPatch, precision: str, mean: float
) -> None:
    """Processors have no TF32: its products are made of rounded numbers."""
    if precision == "high":
        whole, linear = accelerator.product_, gram.linear_gram_
        monkeypatch.setattr(
            accelerator, "product_", lambda out, x, **k: whole(out, as_tf32(x), **k)
        )
        monkeypatch.setattr(
            gram, "linear_gram_", lambda slots, x, *k: linear(slots, as_tf32(x), *k)
        )
    found = error(pair(mean), zoo.vectors(96, batch=32), precision=precision)
    assert found < LARGEST[precision]
    if precision != "highest":
        assert found > 1e-6, "nothing was rounded"


def cut_off(x: Tensor) -> Tensor:
    """X X' as tensor cores sum: 16 features at a time, toward zero, here to 22 bits."""
    total = x.new_zeros(*x.shape[:-1], x.shape[-2], dtype=torch.float64)
    for step in x.double().unflatten(-1, (-1, 16)).movedim(-2, 0):
        total += step @ step.mT
        total.view(torch.int64).bitwise_and_(-1 << 31)
    return total.float()


@pytest.mark.parametrize("mean", [0.0, 1.3])
def test_what_tensor_cores_cut_off_moves_no_score(
    monkeypatch: pytest.MonkeyPatch, mean: float
) -> None:
    """Half precision is summed so, up to a rho of 16; an H200 cut off 2.2e-5 of the diagonal."""
    x = torch.randn(1, 64, 6272).bfloat16()
    lost = 1 - cut_off(x).double() / torch.bmm(x.double(), x.double().mT)
    assert lost.diagonal(dim1=1, dim2=2).max() > 3e-5
    summed = []
    monkeypatch.setattr(accelerator, "accelerated", lambda device: True)
    monkeypatch.setattr(
        accelerator, "_times_transpose", lambda x: summed.append(x.shape[-1]) or cut_off(x)
    )
    models = {
        str(k): zoo.seeded(zoo.Shifted, mean, width=6400, seed=k).bfloat16() for k in range(2)
    }
    batches = [batch.bfloat16() for batch in zoo.vectors(128, batch=64)]
    found = run(models, batches, layers=["lin"])
    assert summed == [6400] * 4
    assert largest_error(found, reference_compare(models, batches)) < 1e-5


def test_images_in_bfloat16() -> None:
    models = {"a": zoo.resnet18().eval(), "b": zoo.resnet34().eval()}
    assert 1e-6 < error(models, zoo.images(32, batch=32), precision="medium") < LARGEST["medium"]


def test_without_centring_bfloat16_rounds_the_spread_away() -> None:
    """Why the reduced precisions centre: their error does not grow with the mean."""
    x = torch.randn(96, 64) + 1000
    y = 1000 + 1.3 * (x - 1000)  # alike but for its scale
    assert cka(x.bfloat16(), y.bfloat16()) < 0.9
    centred = [(z - z.mean(0)).bfloat16() for z in (x, y)]
    assert cka(*centred) > 1 - LARGEST["medium"]


def test_kernels_of_distances() -> None:
    models, batches = pair(3.0), zoo.vectors(96, batch=32)
    exact = run(models, batches, kernel="rbf").matrix("0", "1")
    found = run(models, batches, kernel="rbf", precision="medium").matrix("0", "1")
    assert 0 < (found - exact).abs().to_numpy().max() < LARGEST["medium"]


@pytest.mark.parametrize(
    ("precision", "mean", "centred"),
    [
        *[("highest", 0.0, False), ("highest", 10.0, False), ("highest", 1e4, True)],
        *[("high", 0.0, False), ("high", 10.0, True), ("medium", 0.0, True)],
    ],
)
def test_features_are_centred_where_the_precision_needs_it(
    precision: str, mean: float, centred: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding a mean and taking it away costs three more passes over the features."""
    found = []
    whole = gram.centred_gram_
    monkeypatch.setattr(
        gram, "centred_gram_", lambda *a, **k: found.append(a[1].shape[1]) or whole(*a, **k)
    )
    model, batches = zoo.seeded(zoo.Shifted, mean), zoo.vectors(96, batch=32)
    run({"a": model}, batches, layers=["lin"], precision=precision)
    assert found == [64] * 3 * centred


def test_the_result_tells_its_precision() -> None:
    models, batches = {"a": zoo.mlp()}, zoo.vectors()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert run(models, batches, device="cpu").provenance["precision"] == "highest"
    finally:
        torch.set_float32_matmul_precision(before)
    result = run(models, batches, precision="medium")
    assert result.provenance["precision"] == "medium"


def test_an_unknown_precision_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="precision='tf32' is not known"):
        iter_compare({"a": zoo.mlp()}, zoo.vectors(), precision="tf32")


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("jump", [30.0, 300.0, 3e3, 1e5])
def test_a_mean_that_jumps_after_the_first_batch(jump: float, unbiased: bool) -> None:
    """Its Gram has lost its digits: with either estimator it is formed anew, centred."""
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors(256, batch=64)
    batches[1:] = [batch + jump for batch in batches[1:]]
    for options in ({}, {"hsic_batch_size": 16}):
        found = run(models, batches, unbiased=unbiased, **options)
        expected = {"unbiased": unbiased, "block": options.get("hsic_batch_size")}
        assert largest_error(found, reference_compare(models, batches), **expected) < 1e-4


def under_autocast(model: nn.Module, batch: Tensor) -> Tensor:
    with torch.autocast(batch.device.type, dtype=torch.bfloat16):
        found: Tensor = model(batch)
    return found


@pytest.mark.parametrize("around", [False, True], ids=["in forward", "around the run"])
@pytest.mark.parametrize("mean", [0.0, 3.0, 100.0])
def test_autocast_rounds_the_models_and_no_gram(
    monkeypatch: pytest.MonkeyPatch, mean: float, around: bool
) -> None:
    """On accelerators Grams are made by functions that autocast rounds."""
    models = {str(k): zoo.seeded(zoo.Shifted, mean, width=16384, seed=k) for k in range(2)}
    batches = zoo.vectors(96, batch=32)
    reference = reference_compare(models, batches, call=under_autocast)
    monkeypatch.setattr(accelerator, "accelerated", lambda device: True)
    if around:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = run(models, batches)
    else:
        found = run(models, batches, forward=under_autocast)
    assert largest_error(found, reference) < 1e-5


class Setting:
    """In the place of `accelerator.matmul`: tells which precision is set."""

    now: ClassVar[list[str]] = ["the user's"]

    def __init__(self, device: torch.device, precision: str) -> None:
        self.precision = precision

    def __enter__(self) -> None:
        self.now.append(self.precision)

    def __exit__(self, *error: Any) -> None:
        self.now.pop()


def test_what_has_which_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features the run's, products of Grams float32, and the models what the user has set."""
    seen = set()

    def spy(owner: Any, name: str, what: str) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if not isinstance(args[0], Tensor) or args[0].dtype is torch.float32:
                seen.add((what, Setting.now[-1]))
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    monkeypatch.setattr(accelerator, "matmul", Setting)
    spy(gram, "linear_gram_", "features")
    spy(gram, "centred_gram_", "centred features")
    spy(nn.Linear, "forward", "model")
    spy(self_product, "way", "products")
    models = {"a": zoo.seeded(zoo.Shifted, 100.0), "b": zoo.mlp()}
    run(models, zoo.vectors(), precision="high")
    assert seen == {
        ("features", "high"),
        ("centred features", "high"),
        ("model", "the user's"),
        ("products", "high"),  # of features
        ("products", "highest"),  # of Grams
    }
