"""What is a row: the samples' axis is shown by passes on 2 and on 3 samples, whatever its length.

The oracle's row of a sample is what the model returns for that sample alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import TOLERANCE, largest_error, run
from oracles import Reference, reference_compare
from torch import Tensor, nn
from torch.nn.utils import parametrizations

D = 6


def one_by_one(models: dict[str, Any], batches: list[Tensor]) -> Reference:
    """Features of samples that run alone; outputs whose size differs between them are left out."""
    singles = [x[None] for batch in batches for x in batch]
    found = reference_compare(models, singles, rows=lambda t: t.double().reshape(1, -1).numpy())
    ends = np.cumsum([len(batch) for batch in batches])[:-1]
    for key, parts in list(found.features.items()):
        del found.features[key]
        if len({part.shape for part in parts}) == 1:
            found.features[key] = np.split(np.concatenate(parts), ends)
    return found


def tokens(n: int, length: int, count: int = 4, last: int | None = None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [n] * (count - 1) + [last or n]
    return [torch.randn(size, length, D, generator=generator) for size in sizes]


class Around(nn.Module):
    """Two linear maps, the second on a view of the first's tokens that `fold` makes."""

    def __init__(self, fold: Callable[[Tensor], Tensor], inner: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(D, 8), nn.Linear(8, 8) if inner is None else inner
        self.fold = fold

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.inner(self.fold(torch.tanh(x)))
        y = y[0] if isinstance(y, tuple) else y
        return torch.sin(y).sum() + x.mean(1)  # the samples are mixed here


FOLDS: dict[str, Callable[[Tensor], Tensor]] = {
    "time first": lambda x: x.transpose(0, 1),
    "windows": lambda x: x.reshape(-1, x.shape[1] // 2, 8),
    "tokens": lambda x: x.reshape(-1, 8),
    "tokens by time": lambda x: x.transpose(0, 1).reshape(-1, 8),
    "halves, samples, tokens": lambda x: x.reshape(len(x), 2, -1, 8).transpose(0, 1).reshape(-1, 8),
    "heads": lambda x: x.mT.reshape(len(x) * 8, -1)[:, None].expand(-1, 8, -1).mT,
    "samples last": lambda x: x.permute(1, 2, 0)[..., None].expand(-1, -1, -1, 8),
    "heads of time": lambda x: (
        x.transpose(0, 1)[:, :, None].expand(-1, -1, 2, -1).reshape(x.shape[1], -1, 8)
    ),
}


@pytest.mark.parametrize("length", [12, 8])
@pytest.mark.parametrize("fold", FOLDS)
def test_wherever_the_samples_are(fold: str, length: int) -> None:
    """As many tokens as samples, and fewer; the last batch is smaller."""
    models = {"a": zoo.seeded(Around, FOLDS[fold])}
    batches = tokens(12, length, last=8)
    assert run(models, batches).layers("a") == ["first", "inner", "(output)"]
    result = run(models, batches, layers=["first", "inner"])
    assert largest_error(result, one_by_one(models, batches)) <= TOLERANCE
    assert not result.warnings


@pytest.mark.parametrize("length", [12, 7])
@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_that_are_given_time_first(layer: Any, length: int) -> None:
    models = {"a": zoo.seeded(Around, FOLDS["time first"], layer(8, 8))}
    batches = tokens(12, length)
    reference = one_by_one(models, batches)
    result = run(models, batches, layers=["first", "inner"])
    assert largest_error(result, reference) <= TOLERANCE
    assert not result.warnings


@pytest.mark.parametrize("last", [False, True])
def test_folds_of_another_number_of_tokens(last: bool) -> None:
    """Batches are padded to their longest text: k changes from batch to batch."""
    models = {"a": zoo.seeded(Around, FOLDS["tokens by time" if last else "tokens"])}
    batches = [torch.randn(12, length, D) for length in (9, 12, 5)]
    reference = one_by_one(models, batches[:1])
    for batch in batches[1:]:
        for key, parts in one_by_one(models, [batch]).features.items():
            reference.features[key] += parts
    result = run(models, batches, layers=["first", "inner"])
    assert largest_error(result, reference) <= TOLERANCE


# no samples -----------------------------------------------------------------------------------
class Tables(nn.Module):
    """Outputs of 12 rows that no sample has made."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(D, 8)
        self.position, self.bias = nn.Embedding(12, 8), nn.Embedding(3, 1)
        self.prototypes = parametrizations.weight_norm(nn.Linear(8, 12))
        self.project = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.arange(x.shape[1])
        bias = self.bias((steps[:, None] - steps).clamp(-1, 1) + 1)[..., 0]
        x = torch.softmax(bias, -1) @ (self.lin(x) + self.position(steps))
        return x.mean(1) @ self.project(self.prototypes.weight).mT


@pytest.mark.parametrize("length", [12, 9])
def test_tables_and_weights_are_no_rows(length: int) -> None:
    models, batches = {"a": zoo.seeded(Tables)}, tokens(12, length)
    result = run(models, batches)
    assert result.layers("a") == ["lin", "(output)"]
    assert largest_error(result, one_by_one(models, batches)) <= TOLERANCE
    assert not result.warnings, "nobody misses them"
    with pytest.raises(KeyError, match="it holds no samples"):
        result.why("a", "a", "position", "lin")
    asked = run(models, batches, layers=["lin", "position"])
    assert asked.layers("a") == ["lin", "position"]
    assert "holds no samples" in asked.why("a", "a", "lin", "position")


@pytest.mark.parametrize(
    "parametrize",
    [parametrizations.weight_norm, parametrizations.orthogonal, parametrizations.spectral_norm],
)
def test_what_makes_a_weight_is_no_layer(parametrize: Any) -> None:
    model = nn.Sequential(parametrize(zoo.seeded(nn.Linear, 8, 16)), nn.ReLU(), nn.Linear(16, 4))
    result = run({"a": model}, zoo.vectors(64, batch=16))
    assert result.layers("a") == ["0", "1", "2"]
    assert not [name for name in result._index.model("a").skipped if "parametrizations" in name]
    with pytest.raises(ValueError, match="has no layer"):
        run({"a": model}, zoo.vectors(), layers=["0.parametrizations.weight.0"])


class Experts(nn.Module):
    """Each token goes to one of two experts, which therefore get as many as the data say."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(D, 8)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.lin(x).flatten(0, 1)
        chosen, out = (x[..., 0] > 0).flatten().long(), torch.zeros_like(y)
        for k, expert in enumerate(self.experts):
            out[chosen == k] = expert(y[chosen == k])
        return out.view(len(x), -1, 8)


def routed(*counts: int) -> list[Tensor]:
    """Batches of 12 samples of 2 tokens; of each sample so many go to the first expert."""
    batches = tokens(12, 2)
    for batch in batches:
        for x, count in zip(batch, (*counts, *[1] * 12), strict=False):
            x[:, 0] = torch.tensor([-1.0] * count + [1.0] * (2 - count))
    return batches


def test_an_experts_tokens_are_no_rows_and_that_is_told() -> None:
    batches = routed(0, 1, 2, 1)  # 12 of 12 samples, but 1 of 2 and 3 of 3
    result = run({"a": zoo.seeded(Experts)}, batches)
    assert result.layers("a") == ["lin", "(output)"]
    (said,) = result.warnings
    assert said == (
        'Model "a", layer "experts.0" (and "experts.1") is left out, though it holds samples: '
        "its entries are no fixed number a sample."
    )
    with pytest.raises(KeyError, match="no fixed number a sample"):
        result.why("a", "a", "experts.0", "lin")


def test_tokens_that_are_sorted_by_what_they_are_are_no_rows_and_that_is_told() -> None:
    """One expert gets them all, in an order that the data say: as many a sample in every batch."""

    class Sorts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin, self.expert, self.head = nn.Linear(D, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.lin(x).flatten(0, 1)
            order = (x[..., 0] > 0).flatten().long().argsort(stable=True)
            y = self.expert(y[order])[order.argsort()]
            return self.head(y.reshape(len(x), -1, 8))

    for seed in range(20):
        batches = list(torch.randn(3, 12, 6, D, generator=torch.Generator().manual_seed(seed)))
        result = run({"a": zoo.seeded(Sorts)}, batches)
        assert result.layers("a") == ["lin", "head"]
        (said,) = result.warnings
        assert 'layer "expert" is left out, though it holds samples' in said


def test_a_row_that_a_later_batch_disproves_stays_and_says_why() -> None:
    batches = routed(1, 1, 1, 1)
    batches[2][5, :, 0] = -1.0  # a thirteenth token
    result = run({"a": zoo.seeded(Experts)}, batches)
    assert result.layers("a") == ["lin", "experts.0", "experts.1", "(output)"]
    assert "has nothing for each" in str(result.why("a", "a", "experts.0", "lin"))
    assert result.matrix("a", "a").loc["lin", "(output)"] == pytest.approx(
        run({"a": zoo.seeded(Experts)}, batches, layers=["lin", "(output)"])
        .matrix("a", "a")
        .iat[0, 1]
    )
    assert any('"experts.0" (and "experts.1") has nothing' in s for s in result.warnings)


def test_a_layer_that_runs_sample_by_sample_is_told() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each, self.last = nn.Linear(D, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.stack([self.each(sample) for sample in x]).mean(1))

    result = run({"a": zoo.seeded(Loop)}, tokens(12, 7))
    assert result.layers("a") == ["last"]
    (said,) = result.warnings
    assert 'layer "each" is left out' in said
    with pytest.raises(KeyError, match="anew for each sample"):
        result.why("a", "a", "each#5", "last")


@pytest.mark.parametrize("length", [12, 7])
def test_pieces_of_a_batch_are_no_rows(length: int) -> None:
    """As many steps as samples, or not: no piece of four samples holds them all."""

    class Pieces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.last = nn.Linear(D, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.cat([self.part(piece) for piece in x.split(4)]).mean(1))

    result = run({"a": zoo.seeded(Pieces)}, tokens(12, length))
    assert result.layers("a") == ["last"]
    (said,) = result.warnings
    assert 'layer "part" is left out' in said


def test_a_shared_output_that_a_later_batch_disproves() -> None:
    """Under both its names, and not by what the batch before left."""
    batches = routed(1, 1, 1, 1)
    batches[2][5, :, 0] = -1.0
    model = zoo.seeded(Experts)
    model.experts[0] = nn.Sequential(model.experts[0])
    names = ["lin", "experts.0", "experts.0.0"]
    result = run({"a": model}, batches, layers=names)
    assert [bool(reason) for reason in result.reasons("a")] == [False, True, True]
    assert result.matrix("a", "a").isna().sum().sum() == 8


# what cannot be proved ----------------------------------------------------------------------------
class Fours(nn.Module):
    """Runs on multiples of four samples alone; its middle layer carries time first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(D, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).reshape(len(x) // 4, 4, x.shape[1], 8).flatten(0, 1)
        return self.last(self.middle(y.transpose(0, 1)).mean(0))


def test_what_stays_unproved_stays_a_row_and_is_told_once() -> None:
    result = run({"a": zoo.seeded(Fours)}, tokens(12, 7))
    assert result.layers("a") == ["first", "middle", "last"]
    (said,) = result.warnings
    assert 'layer "first" (and "middle", "last")' in said
    assert "nothing proves" in said
    assert "another size" in said


@pytest.mark.parametrize("length", [12, 7])
def test_a_batch_of_another_size_proves_or_disproves(length: int) -> None:
    models, batches = {"a": zoo.seeded(Fours)}, tokens(12, length, last=8)
    result = run(models, batches)
    assert result.layers("a") == ["first", "middle", "last"], "no row vanishes"
    rows = "time first" if length == 7 else None
    reference = reference_compare(
        models, batches, rows=lambda t: _by_sample(t, length).double().flatten(1).numpy()
    )
    if rows:
        assert largest_error(result, reference) <= TOLERANCE
        assert not result.warnings
        return
    assert result.reasons("a") == [
        None,
        "its output (12, 8, 8) in a batch of 8 samples has nothing for each",
        None,
    ]
    assert any(
        '"middle" has nothing for each sample in a later batch' in s for s in result.warnings
    )
    sound = run(models, batches, layers=["first", "last"])
    assert largest_error(sound, reference) <= TOLERANCE


def _by_sample(t: Tensor, length: int) -> Tensor:
    """Of `Fours` what is (length, n, 8) has time first, when its length is no number of samples."""
    return t.transpose(0, 1) if t.dim() == 3 and t.shape[0] == length == 7 else t


# reductions of folded rows ------------------------------------------------------------------------
@pytest.mark.parametrize("reduce", ["mean", "cls", "last"])
@pytest.mark.parametrize("fold", ["windows", "tokens", "tokens by time", "time first"])
def test_tokens_are_tokens_when_they_are_folded(fold: str, reduce: str) -> None:
    """The inner layer does to each token what `first` could: both reduce to the same."""
    models = {"a": zoo.seeded(Around, FOLDS[fold], nn.Identity())}
    models["a"].fold = lambda x: FOLDS[fold](torch.atanh(x))
    models["a"].double()
    batches = [batch.double() for batch in tokens(12, 8)]
    matrix = run(models, batches, layers=["first", "inner"], reduce=reduce).matrix("a", "a")
    assert matrix.loc["first", "inner"] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("kind", ["conv", "batch norm of tokens"])
def test_the_mean_of_folded_pictures_and_tokens(kind: str) -> None:
    class Pictures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole = nn.Identity()
            self.part = nn.Identity() if kind == "conv" else nn.BatchNorm1d(8, affine=False)

        def forward(self, x: Tensor) -> Tensor:
            n, x = len(x), self.whole(x)
            if kind == "conv":  # (n, 4, 6, 6) in two halves
                halves = torch.stack(x.split(3, -1), 1).flatten(0, 1)
                return self.part(halves).flatten(1).reshape(n, -1)
            return self.part(x.flatten(0, 1)).reshape(n, -1)  # BatchNorm1d of (n tokens, 8)

    shape = (12, 4, 6, 6) if kind == "conv" else (12, 5, 8)
    batches = [torch.randn(shape) for _ in range(4)]
    matrix = run({"a": Pictures()}, batches, layers=["whole", "part"], reduce="mean").matrix(
        "a", "a"
    )
    assert matrix.loc["whole", "part"] == pytest.approx(1.0, abs=1e-4)


# random in evaluation mode ------------------------------------------------------------------------
class Random(nn.Module):
    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c, self.draw = (
            nn.Linear(8, 16),
            nn.Linear(16, 16),
            nn.Linear(16, 4),
            draw,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.draw(self.a(x))))


DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: nn.functional.dropout(x, 0.5),
    "rare dropout": lambda x: nn.functional.dropout(x, 0.05),
    "noise": lambda x: x + 0.1 * torch.randn_like(x),
    "depth": lambda x: x * (torch.rand(len(x), 1) < 0.5),
    "python": lambda x: x * random.random(),
}


@pytest.mark.parametrize("draw", DRAWS)
def test_a_random_model_is_told_with_its_layer(draw: str) -> None:
    result = run({"r": zoo.seeded(Random, DRAWS[draw]), "b": zoo.mlp()}, zoo.vectors(64, batch=32))
    (said,) = result.warnings
    assert 'Model "r" is random in evaluation mode' in said
    assert 'differ from layer "b" on' in said


@pytest.mark.parametrize("draw", DRAWS)
def test_a_run_draws_what_its_batches_draw(draw: str) -> None:
    """Short passes draw nothing, so that a seed gives a model the same numbers as without a run."""
    model, batches = zoo.seeded(Random, DRAWS[draw]).eval(), zoo.vectors(64, batch=32)
    found = []
    for go in (lambda: [model(batch) for batch in batches], lambda: run({"a": model}, batches)):
        torch.manual_seed(0)
        random.seed(0)
        go()
        found.append((torch.rand(4).tolist(), random.random()))
    assert found[0] == found[1]


def test_what_is_not_random_is_not_told() -> None:
    """Dropout as it should be, and statistics of the batch, which mix its samples."""
    proper = zoo.seeded(Random, nn.Dropout(0.5))
    mixing = zoo.seeded(Random, lambda x: x - x.mean(0))
    normed = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6, track_running_stats=False))
    result = run({"a": proper, "b": mixing, "c": normed}, zoo.vectors(64, batch=32))
    assert not result.warnings


class Drops(nn.Module):
    """Skips its middle layer in its first batch, or in its third."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.a, self.b, self.c, self.at, self.batch = *(nn.Linear(8, 8) for _ in range(3)), at, 0

    def forward(self, x: Tensor) -> Tensor:
        self.batch += 1
        x = torch.tanh(self.a(x))
        return self.c(x if self.batch == self.at else torch.tanh(self.b(x)))


@pytest.mark.parametrize("layers", [None, ["a", "b", "c"]])
@pytest.mark.parametrize("order", [(0, 1, 3, 0), (1, 0, 0, 3)])
def test_ensembles_whose_layers_are_dropped_compare_what_ran(
    order: tuple[int, ...], layers: Any
) -> None:
    batches = zoo.vectors(64, batch=16)
    result = run(
        {"e": [zoo.seeded(Drops, at, seed=k) for k, at in enumerate(order)]}, batches, layers=layers
    )
    whole = [zoo.seeded(Drops, 0, seed=k) for k in range(4)]
    expected = run({"e": whole}, batches)
    labels = ["a", "b", "c"]
    assert result.layers("e") == labels
    found = result.particles("e", "e", row="b", col="b").to_numpy()
    ran = [k for k, at in enumerate(order) if not at]
    wanted = expected.particles("e", "e", row="b", col="b").to_numpy()
    np.testing.assert_allclose(found[np.ix_(ran, ran)], wanted[np.ix_(ran, ran)], atol=1e-6)
    assert np.isnan(np.delete(found, ran, axis=0)).all()
    assert "particle" in result.why("e", "e", "b", "a")
    np.testing.assert_allclose(
        result.matrix("e", "e").loc["a", "a"], expected.matrix("e", "e").loc["a", "a"], atol=1e-6
    )
    (said,) = [s for s in result.warnings if "did not run in all particles" in s]
    assert 'Model "e", layer "b"' in said


# the model as found -------------------------------------------------------------------------------
class Remembers(nn.Module):
    """Keeps its last output, counts, writes into a buffer, and builds a table on first use."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 6)
        self.register_buffer("mean", torch.zeros(6))
        self.last: list[Tensor] = []
        self.calls, self.built = 0, False

    def forward(self, x: Tensor) -> Tensor:
        if not self.built:
            self.table, self.built = torch.ones(len(x), 6), True
        self.calls += 1
        y = self.lin(x) * self.table
        self.last = [*self.last, y]
        self.mean += y.mean(0)
        return y + sum(self.last)


def test_short_passes_leave_no_state_in_a_model() -> None:
    batches = zoo.vectors(64, batch=16)
    models = {"a": zoo.seeded(Remembers)}
    result = run(models, batches)
    reference = reference_compare({"a": zoo.seeded(Remembers)}, batches)
    assert largest_error(result, reference) <= TOLERANCE
    model = models["a"]
    assert (model.calls, len(model.last), len(model.table)) == (4, 4, 16)
    expected = sum(y.mean(0) for y in model.last)
    torch.testing.assert_close(model.mean, expected)


def test_hooks_that_a_model_gives_itself_stay() -> None:
    class Hooks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin, self.ready, self.seen = nn.Linear(8, 6), False, []

        def forward(self, x: Tensor) -> Tensor:
            if not self.ready:
                self.lin.register_forward_hook(lambda m, a, out: self.seen.append(len(out)))
                self.ready = True
            return torch.tanh(self.lin(x))

    model = zoo.seeded(Hooks)
    run({"a": model}, zoo.vectors(64, batch=16))
    assert len(model.lin._forward_hooks) == 1
    assert model.seen[-4:] == [16] * 4


def test_lazy_layers_are_filled_in() -> None:
    model = nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.Linear(6, 3))
    result = run({"a": model}, zoo.vectors(64, batch=16))
    assert model[0].in_features == 8
    assert largest_error(result, reference_compare({"a": model}, zoo.vectors(64, batch=16))) < 1e-4


# what the first batch is to confirm ---------------------------------------------------------------
def passes_of(model: nn.Module, batches: list[Tensor], **options: Any) -> list[int]:
    """Numbers of samples of all passes of a run."""
    sizes: list[int] = []
    with model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0]))):
        run({"a": model}, batches, **options)
    return sizes


PASSES: dict[str, tuple[Callable[[Tensor], Tensor], list[int]]] = {
    "plain": (torch.tanh, [2]),
    "time first": (FOLDS["time first"], [2, 3]),
    "tokens": (FOLDS["tokens"], [2, 3]),
    "mixes its samples": (lambda x: x - x.mean(0), [2, 12, 2, 2]),  # the last: is it random?
    "random": (lambda x: x + torch.randn_like(x), [2, 3, 2]),
}


@pytest.mark.parametrize("kind", PASSES)
def test_two_samples_are_enough_where_the_first_batch_confirms_them(kind: str) -> None:
    class Maps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(D, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(fold(self.first(x)))

    fold, short = PASSES[kind]
    batches = tokens(12, 7, count=3, last=9)
    found = passes_of(zoo.seeded(Maps), batches)
    assert found == [*short, *([12, 9] if 12 in short else [12, 12, 9])]


class Pairs(nn.Module):
    """Each sample beside all others, one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.each, self.last = nn.Linear(D, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.stack([self.each(x - sample).mean(0) for sample in x]))


class Cut(nn.Module):
    """Two samples at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.last = nn.Linear(D, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.part(piece) for piece in x.split(2)]))


class Segments(nn.Module):
    """A table of two rows."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(2, D), nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x + self.table(torch.arange(2))[(x[..., 0] > 0).long()])


class Together(nn.Module):
    """A table of all samples by all, as attention between them has."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Identity(), nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.table(torch.tanh(x[:, 0] @ x[:, 0].mT))
        return self.last(torch.einsum("ij,jtd->itd", weights, x))


@pytest.mark.parametrize(
    ("kind", "left", "why"),
    [
        (Pairs, "each#2", "anew for each sample"),
        (Cut, "part#1", "as large for 2 samples as for 3"),
        (Segments, "table", "as large for 2 samples as for 12"),
        (Together, None, None),
    ],
)
def test_what_two_samples_let_one_presume_is_no_proof(
    kind: type[nn.Module], left: str | None, why: str | None
) -> None:
    batches = tokens(12, 7)
    result = run({"a": zoo.seeded(kind)}, batches)
    if left is None:
        assert result.layers("a") == ["table", "last"]
        return
    assert result.layers("a") == ["last"]
    with pytest.raises(KeyError, match=str(why)):
        result.why("a", "a", left, "last")
    closely = [2, 12, 12, 12] if kind is Segments else [2, 12, 2, 3]
    assert passes_of(zoo.seeded(kind), batches)[:4] == closely


def test_groups_of_a_batch_that_is_begun_again_do_not_cross_batches() -> None:
    batches = tokens(12, 7)
    groups = torch.arange(48) // 3
    result = run({"a": zoo.seeded(Cut)}, batches, groups=groups, layers=["part", "last"])
    assert not any("several batches" in said for said in result.warnings)


def test_a_model_with_random_numbers_of_its_own_is_told() -> None:
    own = torch.Generator().manual_seed(0)
    model = zoo.seeded(Random, lambda x: x + torch.randn(x.shape, generator=own))
    (said,) = run({"r": model}, zoo.vectors(64, batch=32)).warnings
    assert 'Model "r" is random in evaluation mode' in said
    assert 'differ from layer "b" on' in said
