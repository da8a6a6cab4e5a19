"""Every measure through the same questions, and one that a user might write."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import measure_oracles as oracle
import numpy as np
import pytest
import torch
import zoo
from checks import run
from oracles import blocks, reference_compare
from torch import Tensor, nn

import cka_widget as cw
from cka_widget.engine.errors import CompareError
from cka_widget.engine.grams import memory
from cka_widget.engine.measures.registry import BY_NAME

N, BLOCK, CLASSES = 96, 16, 2


class OffDiagonal(cw.Measure):
    """A user's own: the cosine of two Grams without their diagonal, nothing centred."""

    name = "off_diagonal"
    invariances = frozenset({"scale", "rotation"})
    needs_raw = True
    degree = 1.0

    def vectors(self, blocks: Any) -> Tensor:
        raw = blocks.raw
        along = raw.along[..., None] + raw.along[..., None, :]
        made = blocks.grams + along + raw.energy[..., None, None]
        made.diagonal(dim1=-2, dim2=-1).zero_()
        return made


def off_diagonal(x: np.ndarray, y: np.ndarray, classes: np.ndarray) -> float:
    k, m = x @ x.T, y @ y.T
    return float(sum(k[i, j] * m[i, j] for i in range(len(x)) for j in range(len(x)) if i != j))


CASES: dict[str, tuple[cw.Measure, oracle.Inner]] = {
    "cka": (cw.CKA(), oracle.cka),
    "biased": (cw.CKA(unbiased=False), oracle.biased_cka),
    "rbf": (cw.CKA(kernel="rbf", bandwidth=0.5), oracle.rbf(1.0)),
    "dcor": (cw.DistanceCorrelation(), oracle.distance_correlation),
    **{
        f"rsa {d} {c}": (cw.RSA(distance=d, compare=c), oracle.rsa(d, c))
        for d in ("euclidean", "correlation", "cosine")
        for c in ("pearson", "spearman")
    },
    "knn": (cw.MutualKNN(k=3), oracle.mutual_knn(3, "cosine")),
    "knn euclidean": (cw.MutualKNN(k=5, distance="euclidean"), oracle.mutual_knn(5, "euclidean")),
    "knn corrected": (cw.MutualKNN(k=4, corrected=True), oracle.corrected_knn(4, "cosine")),
    "within": (cw.WithinClassCKA(), oracle.within_class),
    "own": (OffDiagonal(), off_diagonal),
}
measures = pytest.mark.parametrize(("measure", "inner"), CASES.values(), ids=CASES.keys())


class Shifted(nn.Module):
    """Layers whose features are turned, and far from zero: a block's mean is taken off them."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.lin, self.act, self.head = nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 6)
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.lin(x)) + self.shift)


def models(shift: float = 0.0) -> dict[str, nn.Module]:
    return {"a": zoo.seeded(Shifted, shift), "b": zoo.seeded(Shifted, shift, seed=1)}


def batches(n: int = N, batch: int = 32) -> list[tuple[Tensor, Tensor]]:
    classes = torch.arange(n) % CLASSES
    x = torch.cat(zoo.vectors(n)) + 2.0 * torch.nn.functional.one_hot(classes, 8)
    return list(zip(x.split(batch), classes.split(batch), strict=True))


def expected(
    measure: cw.Measure, inner: oracle.Inner, nets: Any, data: Any, size: int = BLOCK
) -> np.ndarray:
    """Scores of all pairs of rows of a and b, layers of a first."""
    found = reference_compare(nets, data, call=lambda model, batch: model(batch[0]))
    keys = [("a", 0, name) for name in ("lin", "act", "(output)")]
    keys += [("b", 0, name) for name in ("lin", "act", "(output)")]
    features = {key: [np.asarray(part, float) for part in found.features[key]] for key in keys}
    parts = {k: [b for part in v for b in blocks(part, size)] for k, v in features.items()}
    if measure.options.get("kernel") == "rbf":
        first = len(blocks(data[0][1].numpy(), size))
        bandwidth = measure.options["bandwidth"]
        parts = {key: oracle.scaled(found, first, bandwidth) for key, found in parts.items()}
    classes = [b for _, y in data for b in blocks(y.numpy(), size)]
    return np.array(
        [[oracle.by_ratio(inner, parts[p], parts[q], classes) for q in keys] for p in keys]
    )


def scores(measure: Any, nets: Any = None, data: Any = None, **how: Any) -> cw.CKAResult:
    how.setdefault("hsic_batch_size", BLOCK)
    chosen = measure if isinstance(measure, list) else [measure]
    layers = how.pop("layers", ["lin", "act", "head"])
    return run(nets or models(), data or batches(), measures=chosen, layers=layers, **how)


@measures
def test_its_value(measure: cw.Measure, inner: oracle.Inner) -> None:
    found = scores(measure).values
    np.testing.assert_allclose(found, expected(measure, inner, models(), batches()), atol=1e-4)


@measures
def test_its_value_far_from_zero(measure: cw.Measure, inner: oracle.Inner) -> None:
    """The oracle sees the same float32 features: what is left is what the measure loses."""
    nets = models(300.0)
    data = [(x + 50, y) for x, y in batches()]
    np.testing.assert_allclose(
        scores(measure, nets, data).values, expected(measure, inner, nets, data), atol=1e-4
    )


@measures
def test_beside_others(measure: cw.Measure, inner: oracle.Inner) -> None:
    """One pass, the same numbers, whichever comes first."""
    alone = scores(measure)
    other = "rsa" if measure.name == "cka" else "cka"
    for several in ([measure, other, "distance_correlation"], [other, measure]):
        names = [getattr(one, "name", one) for one in several]
        if len(set(names)) < len(names):
            continue
        found = scores(several)
        assert found.measures == tuple(names)
        np.testing.assert_allclose(found.of(measure.name).values, alone.values, atol=2e-6)
        np.testing.assert_allclose(found.of(measure.name).errors, alone.errors, atol=2e-6)


@measures
def test_two_halves_merged_are_the_whole(measure: cw.Measure, inner: oracle.Inner) -> None:
    data = batches()
    if measure.options.get("kernel") == "rbf":  # sigma is that of a run's first batch
        data = [data[0], data[0], data[0]]
    parts = [scores(measure, None, data[:1]), scores(measure, None, data[1:])]
    whole, merged = scores(measure, None, data), parts[0].merge(parts[1])
    np.testing.assert_allclose(merged.values, whole.values, atol=1e-6)
    np.testing.assert_allclose(merged.errors, whole.errors, atol=1e-6)
    assert merged.measure.chance == pytest.approx(whole.measure.chance)


@measures
def test_symmetry_and_itself(measure: cw.Measure, inner: oracle.Inner) -> None:
    found = scores(measure).values
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(np.diagonal(found), 1.0, atol=1e-6)


@measures
@pytest.mark.parametrize("change", ["scale", "rotation", "translation"])
def test_its_invariances(measure: cw.Measure, inner: oracle.Inner, change: str) -> None:
    """As declared; and what is not declared moves the value."""
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3)))[0]
    shift = torch.linspace(-1, 3, 8)
    how = {
        "scale": lambda x: 7.5 * x,
        "rotation": lambda x: x @ turn,
        "translation": lambda x: x + shift,
    }[change]
    nets = {"a": nn.Sequential(nn.Identity(), zoo.seeded(nn.Linear, 8, 5))}
    data = batches()
    plain = scores(measure, nets, data, layers=["0", "1"]).matrix("a", "a").loc["0", "1"]

    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Identity(), zoo.seeded(nn.Linear, 8, 5)

        def forward(self, x: Tensor) -> Tensor:
            self.inner(how(x))
            return self.outer(x)

    changed = scores(measure, {"a": Changed()}, data, layers=["inner", "outer"])
    moved = abs(changed.matrix("a", "a").loc["inner", "outer"] - plain)
    assert moved < 1e-4 if change in measure.invariances else moved > 1e-3


@measures
def test_a_few_rows_at_a_time(
    measure: cw.Measure, inner: oracle.Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with large blocks, whose vectors are not made all at once."""
    whole = scores(measure).values
    monkeypatch.setattr(memory, "vectors_together", lambda: 1)
    np.testing.assert_allclose(scores(measure).values, whole, atol=1e-6)


@measures
def test_ragged_blocks(measure: cw.Measure, inner: oracle.Inner) -> None:
    data = [*batches(64, 32), *batches(8, 8)]
    found = scores(measure, None, data, hsic_batch_size=None).values
    parts = expected(measure, inner, models(), data, size=32)
    np.testing.assert_allclose(found, parts, atol=1e-4)


class Odd(nn.Module):
    """Beside a layer as others a constant one, and one that gives NaN for one sample."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.dead, self.bad = nn.Linear(8, 6), nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.lin(x)
        self.dead(torch.zeros_like(y) + 3)
        self.bad(torch.where(torch.arange(len(y))[:, None] == 5, torch.nan, y))
        return y


@measures
def test_layers_without_a_value(measure: cw.Measure, inner: oracle.Inner) -> None:
    nets = {"a": zoo.seeded(Odd), "b": models()["b"]}
    found = run(nets, batches(), measures=[measure], hsic_batch_size=BLOCK)
    table = found.matrix("a", "b")
    assert table.loc["bad"].isna().all()
    assert table.drop(index=["dead", "bad"]).notna().all(axis=None)
    assert "NaN" in found.why("a", "b", "bad", "lin")
    if measure.name != "off_diagonal":  # which takes nothing off
        assert table.loc["dead"].isna().all()
        assert "same output" in found.why("a", "b", "dead", "lin")


@measures
def test_half_precision(measure: cw.Measure, inner: oracle.Inner) -> None:
    """Of the very numbers that a model in bfloat16 gives."""
    nets = {name: model.bfloat16() for name, model in models().items()}
    data = [(x.bfloat16(), y) for x, y in batches()]
    found = scores(measure, nets, data).values
    parts = expected(measure, inner, nets, data)
    # Ties of bfloat16's few digits break neighbours' ranks.
    tolerance = 0.02 if measure.name == "mutual_knn" else 1e-4
    np.testing.assert_allclose(found, parts, atol=tolerance)


@measures
def test_files(measure: cw.Measure, inner: oracle.Inner, tmp_path: Path) -> None:
    renamed = copy.copy(measure)
    renamed.name = "it"
    result = scores(["cka", renamed])
    result.save(tmp_path / "it.safetensors")
    back = cw.load(tmp_path / "it.safetensors")
    assert back.measures == result.measures
    for name in result.measures:
        one, two = result.of(name), back.of(name)
        assert one.measure == two.measure
        np.testing.assert_array_equal(one.values, two.values)
        np.testing.assert_array_equal(one.errors, two.errors)


@measures
def test_error_bars_and_chance(measure: cw.Measure, inner: oracle.Inner) -> None:
    found = scores(measure)
    assert found.stderr("a", "b").notna().all(axis=None)
    low, high = found.interval("a", "b")
    assert (low < high).all(axis=None)
    if measure.u_centred:
        assert found.above_chance("a", "b").any(axis=None)
    else:
        with pytest.raises(ValueError, match=r"chance|unbiased"):
            found.null("a", "b")


def test_by_name() -> None:
    every = scores(list(BY_NAME))
    assert every.measures == tuple(BY_NAME)
    for name, make in BY_NAME.items():
        alone = scores(make())
        np.testing.assert_allclose(
            every.matrix("a", "b", measure=name), alone.matrix("a", "b"), atol=2e-6
        )
        columns = every.to_frame()
        assert name in columns
    with pytest.raises(KeyError, match=r'no measure "rso".*did you mean "rsa"'):
        every.matrix("a", "b", measure="rso")


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        (["ckka"], ValueError, 'no measure "ckka".*"cka"'),
        ([], TypeError, "list of measures"),
        ([3], TypeError, "no measure"),
        ([cw.RSA], TypeError, r"give RSA\(\)"),
        (["rsa", "rsa"], ValueError, 'called "rsa".*name='),
        ([cw.Measure()], ValueError, "no name"),
    ],
)
def test_what_is_no_measure(given: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        scores(given) if isinstance(given, list) and given else run(models(), [], measures=given)


def test_the_short_forms_beside_measures() -> None:
    with pytest.raises(ValueError, match=r"kernel='rbf' beside measures="):
        scores(["cka"], kernel="rbf")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: cw.RSA(distance="manhattan"), "euclidean, correlation, cosine"),
        (lambda: cw.RSA(compare="kendall"), "pearson, spearman"),
        (lambda: cw.MutualKNN(k=0), "at least 1"),
        (lambda: cw.MutualKNN(distance="l1"), "cosine, euclidean"),
        (lambda: cw.CKA(kernel="poly"), "'linear' or 'rbf'"),
        (lambda: cw.CKA(bandwidth=0), "above 0"),
    ],
)
def test_options_that_there_are_not(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def test_a_block_too_small_for_its_neighbours() -> None:
    with pytest.raises(ValueError, match="at least 12"):
        scores([cw.MutualKNN(k=10)], hsic_batch_size=8)


def test_classes_are_needed() -> None:
    with pytest.raises(CompareError, match=r"no class labels.*within_class_cka"):
        scores(["cka", "within_class_cka"], None, [x for x, _ in batches()])


def test_the_share_of_samples_within_classes() -> None:
    data = [(x, torch.arange(len(x)) % 4) for x, _ in batches(96, 32)]
    with pytest.raises(CompareError, match=r"0% of the first samples.*hsic_batch_size=None"):
        scores(["within_class_cka"], None, data, hsic_batch_size=8)
    some = [(x, torch.tensor([0] * 20 + list(range(1, 13)))) for x, _ in data]
    found = scores(["cka", "within_class_cka"], None, some, hsic_batch_size=None)
    assert any('"within_class_cka" used 62% of the samples' in w for w in found.warnings)


def test_within_classes_it_is_cka_of_batches_sorted_by_class() -> None:
    data = batches(96, 32)
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    by_class = []
    for start in range(0, 96, 32):
        part, label = x[start : start + 32], y[start : start + 32]
        by_class += [(part[label == c], label[label == c]) for c in range(CLASSES)]
    within = scores(["within_class_cka"], None, data, hsic_batch_size=None)
    plain = scores(["cka"], None, by_class, hsic_batch_size=None)
    np.testing.assert_allclose(within.values, plain.values, atol=1e-5)


def test_both_tell_classes_apart_and_nothing_else() -> None:
    """CKA is high, and within classes it is what chance gives."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(2048) % 2
    mean = 6.0 * classes[:, None].float()
    x, z = (torch.randn(2048, 5, generator=generator) + mean for _ in range(2))
    data = [
        (part, label)
        for part, label in zip(torch.cat([x, z], 1).split(64), classes.split(64), strict=True)
    ]
    nets = {"a": Half(0), "b": Half(5)}
    found = run(nets, data, measures=["cka", "within_class_cka"], hsic_batch_size=None)
    value = {m: float(found.matrix("a", "b", measure=m).iat[0, 0]) for m in found.measures}
    error = float(found.stderr("a", "b", measure="within_class_cka").iat[0, 0])
    assert value["cka"] > 0.9
    assert abs(value["within_class_cka"]) < 5 * error < 0.1


class Half(nn.Module):
    def __init__(self, start: int) -> None:
        super().__init__()
        self.start, self.same = start, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.same(x[:, self.start : self.start + 5])


def test_neighbours_of_other_block_sizes_are_not_merged() -> None:
    small, large = (scores(["mutual_knn"], hsic_batch_size=size) for size in (16, 32))
    with pytest.raises(ValueError, match=r"mutual_knn.*16 and 32 samples"):
        small.merge(large)
    assert (small.measure.chance, large.measure.chance) == (5 / 15, 5 / 31)
    ragged = scores(["mutual_knn"], None, batches(80, 64), hsic_batch_size=None)
    assert ragged.measure.chance == pytest.approx((64 * 5 / 63 + 16 * 5 / 15) / 80)


def test_the_figures_of_googles_demonstration() -> None:
    """numpy, seed 1337; Kornblith et al. (2019), their notebook: one block of 100 samples."""
    random = np.random.RandomState(1337)
    x = random.randn(100, 10)
    y = random.randn(100, 10) + x
    assert cw.cka(x, y, unbiased=False) == pytest.approx(0.55761, abs=1e-5)
    assert cw.cka(x, y) == pytest.approx(0.51346, abs=1e-5)
    # Theirs takes 0.5 of the root of the median squared distance, with the zeros of the diagonal.
    from oracles import distances, median_distance

    wide = [np.sqrt(np.median(distances(z) ** 2)) / median_distance(z) for z in (x, y)]
    h = np.eye(100) - 0.01
    grams = [oracle_rbf(z, 0.5 * w * median_distance(z)) for z, w in zip((x, y), wide, strict=True)]
    k, m = (h @ g @ h for g in grams)
    value = (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())
    assert value == pytest.approx(0.65483, abs=1e-5)


def oracle_rbf(z: np.ndarray, sigma: float) -> np.ndarray:
    from oracles import rbf_gram

    return rbf_gram(z, sigma)
