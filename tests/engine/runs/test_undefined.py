"""What cannot be computed is NaN with a reason in words; the rest of the table stays right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import TOLERANCE, largest_error, run
from oracles import reference_compare
from torch import Tensor, nn

from cka_widget.engine.compare import compare
from cka_widget.engine.data.data_warnings import Diagnostics
from cka_widget.engine.errors import CKAWarning, CompareError
from cka_widget.engine.summing.neighbours import Neighbours


def test_a_dead_layer() -> None:
    models, batches = {"a": zoo.seeded(zoo.Dead), "b": zoo.mlp(1)}, zoo.vectors()
    result = run(models, batches)
    reference = reference_compare(models, batches)
    assert largest_error(result, reference) <= TOLERANCE
    assert result.matrix("a", "b").loc["dead"].isna().all()
    assert result.why("a", "b", "dead", "0") == "a dead: always the same output"
    assert result.why("b", "a", "0", "dead") == "a dead: always the same output"
    assert result.why("a", "b", "lin", "0") is None
    reasons = dict(zip(result.layers("a"), result.reasons("a"), strict=True))
    assert reasons["dead"] == reasons["relu"] == "always the same output"
    assert reasons["lin"] is None


@pytest.mark.parametrize("constant", [0.0, 1.0, -1.5, 1e-3, 12345.678, 1e8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_any_constant_is_constant(constant: float, dtype: torch.dtype) -> None:
    model = nn.Sequential(
        zoo.seeded(nn.Linear, 8, 6), zoo.Returns(lambda x: torch.full((len(x), 37), constant))
    )
    model = model.to(dtype)
    result = run({"a": model}, [b.to(dtype) for b in zoo.vectors(70, batch=23)])
    assert result.why("a", "a", "1", "0") == "a 1: always the same output"


@pytest.mark.parametrize("mean", [1.0, 1e4, 1e8])
def test_a_constant_feature_by_a_kernel(mean: float) -> None:
    """Rounding in a linear map must not make a constant input look informative."""
    model = nn.Sequential(
        zoo.Returns(lambda x: torch.full((len(x), 33), mean)), zoo.seeded(nn.Linear, 33, 65)
    )
    result = run({"a": model, "b": zoo.mlp()}, zoo.vectors(100, batch=25))
    assert result.why("a", "b", "1", "0") == "a 1: always the same output"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_inf_stay_in_their_layer(value: float) -> None:
    models, batches = {"a": zoo.seeded(zoo.MakesNaN, value), "b": zoo.mlp(1)}, zoo.vectors()
    result = run(models, batches)
    assert largest_error(result, reference_compare(models, batches)) <= TOLERANCE
    assert result.why("a", "b", "bad", "0") == "a bad: its output holds NaN or infinite values"
    assert result.matrix("a", "b").drop(index="bad").notna().all(axis=None)


def test_one_nan_in_a_late_batch() -> None:
    batches = zoo.vectors(64, batch=16)
    batches[2] = batches[2].clone()
    batches[2][5] = 50.0
    model = nn.Sequential(
        zoo.seeded(nn.Linear, 8, 6),
        zoo.Returns(lambda x: torch.where(x.abs() > 5.0, torch.nan, x)),
        zoo.Returns(lambda x: x.nan_to_num(0.0)),
    )
    result = run({"a": model}, batches)
    assert [bool(model[:2](b).isnan().any()) for b in batches] == [False, False, True, False]
    assert "NaN" in result.why("a", "a", "1", "0")
    assert result.why("a", "a", "0", "2") is None


def test_overflow_of_half_precision_outputs() -> None:
    """Outputs near float16's largest number give finite scores."""
    model = nn.Sequential(zoo.seeded(nn.Linear, 8, 6), zoo.Returns(lambda x: x * 2e4)).half()
    models, batches = {"a": model}, [b.half() for b in zoo.vectors()]
    reference = reference_compare(models, batches)
    assert np.isfinite(reference.features["a", 0, "1"][0]).all()
    assert largest_error(run(models, batches), reference) <= TOLERANCE


def test_what_holds_no_samples_is_refused_in_words() -> None:
    names = ["lin", "words", "scalar", "nothing", "ids", "waves"]
    result = run({"a": zoo.seeded(zoo.Text)}, zoo.vectors(), layers=names)
    reasons = dict(zip(result.layers("a"), result.reasons("a"), strict=True))
    assert reasons["lin"] is None
    assert reasons["words"] == "its output holds no tensor (str)"
    assert reasons["nothing"] == "its output holds no tensor (NoneType)"
    assert "no samples" in reasons["scalar"]
    assert "int64" in reasons["ids"]
    assert "complex64" in reasons["waves"]
    assert result.matrix("a", "a").loc["words"].isna().all()


def test_what_has_no_rows_is_left_out_of_all_layers() -> None:
    result = run({"a": zoo.seeded(zoo.Text)}, zoo.vectors())
    assert result.layers("a") == ["lin", "(output)"]


def test_chosen_layers_that_never_ran() -> None:
    result = run({"a": zoo.seeded(zoo.NeverCalled)}, zoo.vectors(), layers=["aux.0", "head"])
    assert result.layers("a") == ["aux.0", "head"]
    assert result.reasons("a") == ["never ran", None]
    assert result.why("a", "a", "aux.0", "head") == "a aux.0: never ran"


def test_a_layer_that_runs_in_some_batches_only() -> None:
    batches = zoo.vectors(64, batch=16)
    batches[0][0, 0], batches[1][0, 0] = 1.0, -1.0  # two calls, then one
    result = run({"a": zoo.seeded(zoo.DataDependent)}, batches)
    assert result.why("a", "a", "step#2", "stem") == "a step#2: did not run in every batch"
    assert result.why("a", "a", "step#1", "stem") is None


def test_calls_beyond_the_first_batchs_are_said() -> None:
    batches = zoo.vectors(64, batch=16)
    batches[0][0, 0], batches[1][0, 0] = -1.0, 1.0  # one call, then two
    result = run({"a": zoo.seeded(zoo.DataDependent)}, batches)
    assert any('"step" ran more often' in sentence for sentence in result.warnings)


def branching_batches() -> list[torch.Tensor]:
    batches = zoo.vectors(64, batch=16)
    for batch, first in zip(batches, (-1.0, 1.0, -1.0, 1.0), strict=True):
        batch[0, 0] = first
    return batches


def test_a_layer_that_first_runs_in_a_later_batch() -> None:
    models, batches = {"a": zoo.seeded(zoo.Branches)}, branching_batches()
    result = run(models, batches)
    assert result.layers("a") == ["stem", "head"]
    (said,) = [s for s in result.warnings if '"late"' in s]
    assert 'Model "a", layer "late" ran in a later batch and not in the first' in said
    with pytest.raises(KeyError, match="did not run in the first batch"):
        result.why("a", "a", "late", "head")
    listed = run(models, batches, layers=["late", "head"])
    assert listed.reasons("a") == ["did not run in the first batch", None]
    assert any('"late" ran in a later batch' in s for s in listed.warnings)


def test_an_alias_of_the_first_batch_only() -> None:
    models, batches = {"a": zoo.seeded(zoo.Branches)}, branching_batches()
    result = run(models, batches)
    assert any('layer "gate" gave the same tensor as another' in s for s in result.warnings)
    both = run(models, batches, layers=["stem", "gate", "head"])
    assert not both.warnings
    assert largest_error(both, reference_compare(models, batches)) <= TOLERANCE
    steady = [batch for batch in batches if batch[0, 0] < 0]
    assert not run(models, steady).warnings
    ids = nn.Sequential(zoo.seeded(nn.Linear, 8, 6), nn.Sequential(zoo.Text().ids))
    assert not run({"a": ids}, batches).warnings, "one output under two names, and without a row"
    assert not run(
        {"a": zoo.seeded(zoo.Nested), "b": zoo.seeded(zoo.InPlaceChain)}, steady
    ).warnings


@pytest.mark.parametrize("batch_first", [False, True])
def test_steps_taken_for_samples_are_warned_about(batch_first: bool) -> None:
    """Batches of another order than the module's: it mixes what is counted as samples."""

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(8, 6, batch_first=batch_first)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.rnn(x)[0]
            return out.sum(1)

    result = run({"a": zoo.seeded(Steps)}, zoo.tokens(48, length=7, batch=12))
    said = [s for s in result.warnings if "takes for time the axis" in s]
    assert len(said) == (0 if batch_first else 1)
    assert all('layer "rnn" (batch_first=False)' in s for s in said)
    for model in (zoo.seeded(zoo.TimeFirst), zoo.seeded(zoo.Recurrent), zoo.seeded(zoo.Packed)):
        assert not run({"a": model}, zoo.tokens(48, length=7, batch=12)).warnings


@pytest.mark.parametrize("n", [1, 2, 3])
def test_fewer_than_four_samples(n: int) -> None:
    with pytest.warns(CKAWarning, match=f"Only {n} samples"):
        result = compare({"a": zoo.mlp()}, zoo.vectors(n, batch=n), progress=False)
    assert result.matrix("a", "a").isna().all(axis=None)
    assert result.why("a", "a", "0", "2") == "a 0: too few samples"
    assert result.blocks == 0


def test_a_small_first_batch_does_not_spoil_what_follows() -> None:
    data = zoo.vectors(34, batch=34)[0]
    batches = list(data.split([2, 16, 16]))
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    result = run(models, batches)
    assert largest_error(result, reference_compare(models, batches)) <= TOLERANCE
    assert result.samples == 32


def test_a_small_last_batch_gives_no_layer_a_reason() -> None:
    """A model that squeezes away the sample axis of its last batch, of one sample."""
    model = nn.Sequential(
        zoo.seeded(nn.Linear, 8, 6), zoo.Returns(lambda x: x[..., None].squeeze())
    )
    batches = list(zoo.vectors(33, batch=33)[0].split(16))
    assert model(batches[-1]).shape == (6,)
    result = run({"a": model}, batches)
    assert result.reasons("a") == [None] * 2
    assert largest_error(result, reference_compare({"a": model}, batches[:-1])) <= TOLERANCE


def test_many_small_batches_are_warned_about() -> None:
    data = zoo.vectors(40, batch=40)[0]
    result = run({"a": zoo.mlp()}, list(data.split([16, 3, 16, 3, 2])))
    assert any("3 of 5 batches" in sentence for sentence in result.warnings)
    assert not run({"a": zoo.mlp()}, list(data.split(8))).warnings


def test_batches_sorted_by_class_are_warned_about() -> None:
    data = zoo.vectors(120, batch=120)[0]
    labels = torch.arange(3).repeat_interleave(40)
    mixed = labels[torch.randperm(120, generator=torch.Generator().manual_seed(0))]

    def batches(y: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(zip(data.split(20), y.split(20), strict=True))

    with pytest.warns(CKAWarning, match="sorted by class"):
        compare({"a": zoo.mlp()}, batches(labels), progress=False)
    assert not run({"a": zoo.mlp()}, batches(mixed)).warnings


FORMS = {
    "integers": lambda y: y,
    "a column": lambda y: y[:, None],
    "one-hot": lambda y: nn.functional.one_hot(y, 3),
    "soft one-hot": lambda y: nn.functional.one_hot(y, 3).float(),
    "a list": lambda y: y.tolist(),
    "names": lambda y: tuple(["cat", "dog", "owl"][i] for i in y),
}


@pytest.mark.parametrize("form", FORMS)
def test_labels_in_every_form_tell_what_is_sorted(form: str) -> None:
    parts = zoo.vectors(120, batch=20)
    labels = torch.arange(3).repeat_interleave(40)
    mixed = labels[torch.randperm(120, generator=torch.Generator().manual_seed(0))]

    def said(y: torch.Tensor, count: int = 6) -> str:
        batches = [(x, FORMS[form](t)) for x, t in zip(parts, y.split(20), strict=True)]
        return " ".join(run({"a": zoo.mlp()}, batches, max_batches=count).warnings)

    assert "sorted by class" in said(labels)
    assert "All samples have the same label" in said(labels, 2), "a sorted set, cut short"
    assert not said(mixed)


def test_what_is_no_class_tells_nothing() -> None:
    parts = zoo.vectors(120, batch=20)
    for targets in (torch.zeros(20), torch.zeros(20, 1), torch.zeros(20, 3), torch.zeros(3)):
        assert not run({"a": zoo.mlp()}, [(x, targets) for x in parts]).warnings


def test_misspelt_layers_offer_the_nearest_name() -> None:
    models = {"net": zoo.resnet18()}
    with pytest.raises(ValueError, match=r'"net" has no layer "layer1.0.con1".*"layer1.0.conv1"'):
        run(models, zoo.images(), layers=["layer1.0.con1"])
    with pytest.raises(ValueError, match="no layer matches"):
        run(models, zoo.images(), layers="nothing.*")
    with pytest.raises(ValueError, match="predicate chose no layer"):
        run(models, zoo.images(), layers=lambda name, module: False)
    with pytest.raises(ValueError, match='names "nat"'):
        run(models, zoo.images(), layers={"nat": None})


def test_unknown_names_in_a_result() -> None:
    result = run({"a": zoo.mlp()}, zoo.vectors())
    with pytest.raises(KeyError, match='no model "b"'):
        result.matrix("a", "b")
    with pytest.raises(KeyError, match='no layer "nope"'):
        result.particles("a", "a", row="nope", col="0")


def test_an_empty_loader() -> None:
    with pytest.raises(RuntimeError, match="no batches"):
        run({"a": zoo.mlp()}, [])


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_dead_layer_in_every_kernel_and_estimator(kernel: str, unbiased: bool) -> None:
    models = {"a": zoo.seeded(zoo.Dead), "b": zoo.mlp(1)}
    result = run(models, zoo.vectors(70, batch=23), kernel=kernel, unbiased=unbiased)
    assert result.why("a", "b", "dead", "0") == "a dead: always the same output"
    assert result.matrix("a", "b").drop(index=["dead", "relu"]).notna().all(axis=None)


def test_a_layer_that_dies_and_one_that_wakes() -> None:
    """Constant in some batches only: those add nothing, the others count."""
    batches = zoo.vectors(64, batch=16)
    marks = [0.0, 1.0, 0.0, 1.0]
    batches = [
        torch.cat([b, torch.full((16, 1), m)], 1) for b, m in zip(batches, marks, strict=True)
    ]

    class Switch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin, self.on, self.off = nn.Linear(9, 6), nn.Identity(), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h, mark = self.lin(x), x[:, -1:]
            self.on(h * mark)
            self.off(h * (1 - mark) + 3.0)
            return h * 2

    models = {"a": Switch()}
    result = run(models, batches)
    assert result.reasons("a") == [None] * 4
    assert largest_error(result, reference_compare(models, batches)) <= TOLERANCE


@pytest.mark.parametrize("options", [{}, {"particle_axis": 0}])
def test_no_layer_with_rows_is_told(options: dict[str, Any]) -> None:
    """Sums over the samples, or a particle axis that is not there."""

    class Total(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(0)

    with pytest.raises(CompareError, match="no layer gives a row of features for each sample: its"):
        run({"a": nn.Sequential(Total())}, zoo.vectors(), **options)


@pytest.mark.parametrize("block", [4, 8, 32])
def test_a_layer_is_constant_as_a_whole_or_not_at_all(block: int) -> None:
    """Not in those blocks that happen to vary least: beside a constant feature of 1e6."""

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain, self.beside = nn.Identity(), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.plain(x * 1)
            return self.beside(torch.cat([x * 0.175, torch.full((len(x), 1), 1e6)], 1))

    found = run({"a": Beside()}, zoo.vectors(512, d=16, batch=64), hsic_batch_size=block)
    assert found.matrix("a", "a").loc["plain", "beside"] == pytest.approx(1.0, abs=1e-3)


class There(Tensor):
    """Labels that say they are on a GPU, and count how often they are read."""

    reads = 0

    @property
    def device(self) -> Any:
        return torch.device("cuda")

    def tolist(self) -> Any:
        There.reads += 1
        return self.as_subclass(Tensor).tolist()


def test_labels_on_a_device_are_read_once_at_the_end() -> None:
    """Each read makes the host wait for all queued work."""
    There.reads = 0
    watch, same = Diagnostics(4), Diagnostics(4)
    labels = torch.zeros(16, dtype=torch.long)
    for number in range(8):
        labels.fill_(number)  # a loader may use its memory again
        watch.observe([(None, labels.as_subclass(There))], 16)
        same.observe([(None, labels.clone())], 16)
    assert not There.reads
    assert watch.warnings(Neighbours().alike) == same.warnings(Neighbours().alike) != []
    assert There.reads == 8
    assert watch.warnings(Neighbours().alike) == same.warnings(Neighbours().alike)
    assert There.reads == 8
