"""Features of any size: from the smallest numbers that a precision has to its largest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import largest_error, run
from oracles import median_distance, minibatch_cka, rbf_gram, reference_compare
from torch import Tensor, nn

from cka_widget.engine.functional import MinibatchCKA, cka
from cka_widget.engine.grams import accelerator, gram
from cka_widget.result.combine import concat
from cka_widget.result.result import CKAResult, load

TOLERANCE = {"highest": 1e-4, "high": 1e-4, "medium": 3e-3}


@pytest.fixture(params=[False, True], ids=["cpu", "queued"], autouse=True)
def queued(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """On the CPU, and on the CPU in an accelerator's place."""
    if request.param:
        monkeypatch.setattr(accelerator, "accelerated", lambda device: True)
    return bool(request.param)


class Sized(nn.Module):
    """The same features, and those times a factor; the last input is a factor of the batch's."""

    def __init__(
        self, factor: float, mean: float = 0.0, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.lin, self.sized = nn.Linear(8, 16), nn.Identity()
        self.factor, self.mean, self.dtype = factor, mean, dtype

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lin(x[:, :8])
        z = (y.double() + self.mean) * self.factor * x[:1, 8:].double().prod()
        self.sized(z.to(self.dtype))
        return y.tanh()


def sized(*args: Any, seed: int = 0, **kwargs: Any) -> nn.Module:
    model: nn.Module = zoo.seeded(Sized, *args, seed=seed, **kwargs)
    return model


def batches(*factors: float) -> list[Tensor]:
    """Of 32 samples each, one a factor, or six."""
    factors = factors or (1.0,) * 6
    parts = zoo.vectors(32 * len(factors), batch=32)
    return [torch.cat([x, torch.full((32, 1), f)], 1) for x, f in zip(parts, factors, strict=True)]


def error(models: Any, data: list[Tensor], **options: Any) -> float:
    found = run(models, data, **options)
    oracle = {"unbiased": options.get("unbiased", True), "block": options.get("hsic_batch_size")}
    return largest_error(found, reference_compare(models, data), **oracle)


OPTIONS: list[dict[str, Any]] = [
    *({}, {"hsic_batch_size": 8}, {"unbiased": False}),
    *({"precision": "high"}, {"precision": "medium"}),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("mean", [0.0, 40.0, 3e4])
@pytest.mark.parametrize("factor", [3e-42, 1e-25, 1e-20, 1e-15, 1e14, 1e18, 5e32])
def test_scores_do_not_depend_on_the_scale(
    factor: float, mean: float, options: dict[str, Any]
) -> None:
    found = error({"a": sized(factor, mean)}, batches(), **options)
    assert found < TOLERANCE[options.get("precision", "highest")]


@pytest.mark.parametrize(
    ("dtype", "factor"),
    [
        *[(torch.float16, 6e-8 * 3), (torch.float16, 1e-6), (torch.float16, 2e4)],
        *[(torch.bfloat16, 1e-39), (torch.bfloat16, 1e-21), (torch.bfloat16, 1e38)],
        *[(torch.float32, 1e-44), (torch.float32, 1.1e38), (torch.float64, 1e-60)],
        *[(torch.float64, 1e50)],
    ],
)
def test_the_ends_of_every_precision(dtype: torch.dtype, factor: float) -> None:
    """The oracle has the same rounded features: a few multiples of the smallest number."""
    data = batches()
    model = sized(factor, 0.0, dtype)
    reference = reference_compare({"a": model}, data)
    largest = max(float(np.abs(x).max()) for x in reference.features["a", 0, "sized"])
    assert largest < torch.finfo(dtype).max
    assert largest_error(run({"a": model}, data), reference) < 1e-4


def test_a_scale_that_no_number_of_the_precision_has_is_told() -> None:
    models = {"a": sized(1e-47), "b": sized(1e39), "c": sized(1e-20)}
    result = run(models, batches())
    assert result.why("a", "c", "sized", "lin") == "a sized: always the same output"
    why = result.why("b", "c", "sized", "lin")
    assert why == "b sized: its output holds NaN or infinite values"
    assert result.reasons("c") == [None] * 3


@pytest.mark.parametrize("factor", [1e-41, 1e-18, 1e19, 1e34])
def test_kernels_of_distances(factor: float) -> None:
    data, models = batches(), {"a": sized(factor)}
    features = reference_compare(models, data).features
    x, y = (features["a", 0, layer] for layer in ("sized", "(output)"))
    sigmas = [0.4 * median_distance(z[0]) for z in (x, y)]
    grams = [[rbf_gram(part / s, 1.0) for part in z] for z, s in zip((x, y), sigmas, strict=True)]
    result = run(models, data, kernel="rbf")
    score = result.matrix("a", "a").loc["sized", "(output)"]
    assert score == pytest.approx(minibatch_cka(*grams), abs=1e-4)
    np.testing.assert_allclose(np.array(result.provenance["sigma"])[[1, 2]], sigmas, rtol=1e-5)


JUMPS = {
    "a tiny first batch": (1e-20, 1.0, 1.0, 1.0, 1.0, 1.0),
    "a huge first batch": (1e20, 1.0, 1.0, 1.0, 1.0, 1.0),
    "up to the top": (1e-38, 1e-20, 1.0, 1e18, 1e30, 3e33),
    "back and forth": (1.0, 1e12, 1e-12, 1e25, 1e-25, 1e25),
    "zero at first": (0.0, 0.0, 1e25, 1e-20, 1e25, 1e25),
    "zero, then the smallest": (0.0, 1e-42, 1e-30, 1.0, 2.0, 1.0),
}


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
@pytest.mark.parametrize("mean", [0.0, 500.0, 3e4])
@pytest.mark.parametrize("jump", JUMPS)
def test_a_scale_that_changes(jump: str, mean: float, options: dict[str, Any]) -> None:
    models = {"a": sized(1.0, mean), "b": sized(1e-3, seed=1)}
    assert error(models, batches(*JUMPS[jump]), **options) < 1e-4


@pytest.mark.parametrize("jump", JUMPS)
def test_ensembles_in_one_call(jump: str) -> None:
    models = {"e": [sized(f, seed=k) for k, f in enumerate((1.0, 1.0, 1.0))], "b": sized(1.0)}
    assert error(models, batches(*JUMPS[jump]), vmap=True) < 1e-4


def test_a_nearly_constant_first_batch() -> None:
    """Its spread sets the scale; what follows is larger by 1e13."""
    data = zoo.vectors(192, batch=32)
    data[0] = 1 + 1e-6 * data[0]
    data[1:] = [1e7 * x for x in data[1:]]
    assert error({"a": zoo.mlp(0), "b": zoo.mlp(1)}, data) < 1e-4


@pytest.mark.parametrize("large", [slice(0, 12), slice(12, None)], ids=["first", "others"])
def test_blocks_that_outgrow_the_others(large: slice) -> None:
    """In blocks of 12 and of 11 samples, which are not multiplied together."""
    data = zoo.vectors(34 * 4, batch=34)
    data[2][large] *= 1e24
    assert error({"a": zoo.mlp(0), "b": zoo.mlp(1)}, data, hsic_batch_size=16) < 1e-4


def test_rounding_and_batches_are_no_constant(queued: bool) -> None:
    """What is zero for another reason than that the output never changes says so."""

    class Hardly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rounding, self.by_batch, self.same = (nn.Identity() for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            ulp = torch.tensor(2.0**24).nextafter(torch.tensor(0.0))
            self.rounding(torch.where(x > 0, 2.0**24, ulp))
            self.by_batch(x.mean().expand(len(x), 3))
            self.same(torch.ones(len(x), 2))
            return x * 2

    result = run({"a": Hardly()}, zoo.vectors())
    reasons = dict(zip(result.layers("a"), result.reasons("a"), strict=True))
    assert reasons["same"] == "always the same output"
    if not queued:  # an accelerator would have to be waited for
        assert reasons["rounding"] == "its output varies by less than the rounding of its numbers"
        assert reasons["by_batch"] == "the same output for all samples of a batch"
    assert result.matrix("a", "a").loc[["rounding", "by_batch", "same"]].isna().all(axis=None)


# Powers of two change no digit: whatever is computed must be equal.
EXPONENTS = [-130, -70, -35, 35, 70, 118]


def everything(result: CKAResult) -> list[np.ndarray]:
    frames = [result.matrix("a", "b"), result.stderr("a", "b"), *result.interval("a", "b")]
    more = [result.null("a", "b"), result.above_chance("a", "b"), result.matrix("a", "a")]
    return [frame.to_numpy(float) for frame in (*frames, *more)]


def same(one: CKAResult, other: CKAResult) -> None:
    for x, y in zip(everything(one), everything(other), strict=True):
        assert np.isfinite(x).all()
        np.testing.assert_allclose(x, y, atol=1e-5)


def models(exponent: int, ensemble: bool) -> dict[str, Any]:
    a = [sized(math.ldexp(1.0, exponent), seed=k) for k in range(2)]
    return {"a": a if ensemble else a[0], "b": sized(math.ldexp(1.0, -exponent // 2), seed=5)}


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_error_bars_do_not_depend_on_the_scale(exponent: int, ensemble: bool) -> None:
    data = zoo.vectors(256, batch=32)
    same(run(models(exponent, ensemble), data), run(models(0, ensemble), data))


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_parts_of_different_scale_are_merged(exponent: int, ensemble: bool, tmp_path: Path) -> None:
    """Each part has fixed a unit of its own by its first batch, and a file keeps it."""
    factors = (1.0, 1.0, 2.0, 1e-4, 1.0, 2.0, 1.0, 0.5)
    data = batches(*factors)
    whole = run(models(0, ensemble), data)
    parts = [run(models(exponent, ensemble), part) for part in (data[:3], data[3:])]
    for k, part in enumerate(parts):
        part.save(tmp_path / f"{k}")
    first, second = (load(tmp_path / f"{k}") for k in range(2))
    for merged in (parts[0].merge(parts[1]), second.merge(first)):
        for x, y in zip((merged.matrix("a", "b"),), (whole.matrix("a", "b"),), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-5)
        if not ensemble:  # an ensemble's is linearised at the running mean
            np.testing.assert_allclose(merged.stderr("a", "b"), whole.stderr("a", "b"), atol=1e-5)
        assert np.isfinite(merged.stderr("a", "b")).all(axis=None)


def test_layers_side_by_side() -> None:
    data = batches()
    whole = run(models(70, False), data)
    parts = [
        run(models(70, False), data, layers={"a": ["lin", "sized"], "b": [layer]})
        for layer in ("sized", "(output)")
    ]
    found = concat(parts).matrix("a", "b")
    np.testing.assert_allclose(found, whole.matrix("a", "b").loc[found.index, found.columns])


def test_functions_of_features() -> None:
    x, y = torch.randn(24, 6, dtype=torch.float64), torch.randn(24, 5, dtype=torch.float64)
    y[:, 0] += x[:, 0]
    for kernel in ("linear", "rbf"):
        expected = cka(x, y, kernel=kernel)
        for exponent in (-1000, -500, -300, 300, 500, 1000):
            big = x * math.ldexp(1.0, exponent)
            assert cka(big, y, kernel=kernel) == pytest.approx(expected, abs=1e-12)
    assert cka(x + 1e6, y * 2.0**-400) == pytest.approx(cka(x, y), abs=1e-6)
    acc, plain = MinibatchCKA(), MinibatchCKA()
    for k in range(8):
        x, y = torch.randn(16, 6), torch.randn(16, 5)
        plain.update({"x": x, "y": x[:, :5] + y})
        acc.update({"x": x * 2.0**-100, "y": (x[:, :5] + y) * 2.0 ** (80 * (k > 1))})
    np.testing.assert_allclose(
        acc.compute().loc["x", "x"], plain.compute().loc["x", "x"], atol=1e-6
    )
    assert np.isfinite(acc.stderr()).all(axis=None)


def test_one_look_a_row(queued: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU of rows whose Gram is of no ordinary size; later batches read no feature more."""
    looks, passes = [], []
    look, scaled = gram.shift_of, gram.scaled
    monkeypatch.setattr(gram, "shift_of", lambda x: looks.append(x.shape) or look(x))
    monkeypatch.setattr(
        gram, "scaled", lambda x, by: passes.append(isinstance(by, int) and by) or scaled(x, by)
    )
    run({"a": sized(1e-3)}, batches())
    assert len(looks) == (3 if queued else 0)
    looks.clear()
    run({"b": sized(1e11)}, batches())
    assert len(looks) == (3 if queued else 1)
    assert not any(passes)
    looks.clear()
    run({"a": sized(1e-30)}, batches())
    assert len(looks) == (3 if queued else 1)


def test_one_more_pass_where_features_outgrow_their_scale() -> None:
    model = zoo.Counting(sized(1.0))
    data = batches(1.0, 1.0, 1e25, 1e25, 1.0)
    models = {"a": model}
    assert (
        largest_error(
            run(models, data, layers=["inner.lin", "inner.sized"]),
            reference_compare(models, data, {"a": ["inner.lin", "inner.sized"]}),
        )
        < 1e-4
    )
    assert model.sizes[:6] == [32] * 6
    assert len(model.sizes) == 6 + len(data), "six of the run, five of the oracle"


def _initial(kind: str, **config: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    build = getattr(transformers, f"{kind}Model")
    model: nn.Module = zoo.seeded(lambda: build(getattr(transformers, f"{kind}Config")(**config)))
    return model.eval()


NETWORKS: dict[str, tuple[dict[str, Any], str]] = {
    "MobileNetV1": ({"depth_multiplier": 0.25, "image_size": 64}, "*"),
    "MobileNetV2": ({"depth_multiplier": 0.35, "image_size": 64}, "*"),
    "MobileViT": (
        {
            "image_size": 64,
            "hidden_sizes": [32, 48, 64],
            "neck_hidden_sizes": [8, 16, 24, 32, 48, 64, 128],
        },
        "*.convolution",
    ),
    "SamVision": (
        {
            **{"image_size": 64, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 4},
            **{"num_attention_heads": 2, "output_channels": 16, "global_attn_indexes": [1, 3]},
            **{"window_size": 4, "num_pos_feats": 16},
        },
        "*.mlp.*",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_at_their_initial_weights(kind: str) -> None:
    """Weights of 0.02 and norms of what never came: features shrink from layer to layer."""
    config, layers = NETWORKS[kind]
    models, data = {"a": _initial(kind, **config)}, zoo.images(32, size=64)
    result = run(models, data, layers=layers)
    assert result.sums.unit.min() < -90
    assert largest_error(result, reference_compare(models, data)) < 1e-4
