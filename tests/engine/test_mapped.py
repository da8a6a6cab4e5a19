"""`vmap=True`: all particles of an ensemble in one call, with the scores of one after another."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import MethodType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import TOLERANCE, largest_error, run
from oracles import reference_compare
from torch import Tensor, nn
from torch.func import stack_module_state
from torch.nn.functional import leaky_relu

from cka_widget.engine import accelerator, gram, symmetric
from cka_widget.engine.compare import iter_compare
from cka_widget.engine.errors import CompareError
from cka_widget.engine.particles import StackedParticles
from cka_widget.engine.result import CKAResult


class Chosen(nn.Module):
    """What a forward pass computes hangs on an attribute."""

    def __init__(self, activation: Any = torch.relu, pools: Any = 2) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 6)
        self.activation, self.pools = activation, pools

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.lin(x))


class Counted(nn.Module):
    """Notes in one list for all particles how many samples it ran on."""

    def __init__(self, seen: list[int], seed: int) -> None:
        super().__init__()
        self.inner = zoo.mlp(seed)
        self.note = seen.append

    def __deepcopy__(self, memo: Any) -> Counted:
        made = Counted.__new__(Counted)
        nn.Module.__init__(made)
        made.inner, made.note = copy.deepcopy(self.inner, memo), self.note
        return made

    def forward(self, x: Tensor) -> Tensor:
        self.note(len(x))
        return self.inner(x)


class Keeps(nn.Module):
    """Builds a mask on its first batch, counts its calls, and keeps what it computed."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.head = nn.Linear(8, 6), nn.Linear(6, 4)
        self.mask: Tensor | None = None
        self.last: Tensor | None = None
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.last = torch.relu(self.lin(x))
        if self.mask is None:
            self.mask = self.last.new_ones(6).cumsum(0)
        self.calls += 1
        return self.head(self.last * self.mask)


class Steps(nn.Module):
    """Gives its buffer a new value in every pass."""

    k: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 6)
        self.register_buffer("k", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.sin(self.lin(x) * (1 + 3 * self.k))
        self.k = self.k + 1
        return y


class Tied(nn.Module):
    def __init__(self, tie: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        if tie:
            self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


def normed() -> nn.Module:
    norm = torch.nn.utils.parametrizations.weight_norm
    return nn.Sequential(norm(nn.Linear(8, 6)), nn.ReLU(), norm(nn.Linear(6, 4)))


class BeforeAnyParameter(nn.Module):
    """Its first output is the same in all particles."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Tanh()
        self.lin = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(self.scale(x))


def hooked(model: Chosen) -> Chosen:
    model.lin.register_forward_hook(lambda module, args, out: torch.sin(out))
    return model


def other_forward(model: Chosen) -> Chosen:
    model.forward = MethodType(lambda self, x: self.lin(x) ** 2, model)  # type: ignore[method-assign]
    return model


def particles(build: Any, *args: Any, count: int = 3) -> list[nn.Module]:
    return [zoo.seeded(build, *args, seed=seed) for seed in range(count)]


def convolutional() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
        *(nn.Conv2d(6, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)),
    )


def same(found: CKAResult, expected: CKAResult, tolerance: float = 2e-6) -> None:
    """Labels, aliases, reasons, and every pair of particles."""
    assert found.models == expected.models
    for name in expected.models:
        assert found.layers(name) == expected.layers(name)
        assert found.n_particles(name) == expected.n_particles(name)
    one, other = found.to_frame(), expected.to_frame()
    keys = [key for key in other.columns if key not in ("cka", "stderr")]
    assert one[keys].equals(other[keys])
    np.testing.assert_allclose(one["cka"], other["cka"], atol=tolerance, equal_nan=True)
    np.testing.assert_allclose(one["stderr"], other["stderr"], atol=tolerance, equal_nan=True)


ENSEMBLES: dict[str, tuple[list[nn.Module], list[Any], dict[str, Any]]] = {
    "mlp": ([zoo.mlp(seed) for seed in range(3)], zoo.vectors(), {}),
    "in place": (particles(zoo.InPlaceChain), zoo.vectors(), {}),
    "convolutions": (particles(convolutional), zoo.images(), {}),
    "residual": (particles(zoo.ResNet, (1, 1, 1, 1), 4, count=2), zoo.images(), {}),
    "called twice": (particles(zoo.CalledTwice), zoo.vectors(), {}),
    "shared module": (particles(zoo.SharedModule), zoo.vectors(), {}),
    "nested": (particles(zoo.Nested), zoo.vectors(), {}),
    "dead": (particles(zoo.Dead), zoo.vectors(), {}),
    "mean of 1e4": (particles(zoo.Shifted, 1e4), zoo.vectors(), {}),
    "tokens": (particles(zoo.TokenClassifier), zoo.token_batches(48, batch=16), {}),
    "masked mean": (
        particles(zoo.TokenClassifier),
        zoo.token_batches(48, batch=16),
        {"reduce": "mean"},
    ),
    "encoder": (
        [zoo.encoder(seed=seed) for seed in range(2)],
        list(torch.randn(48, 5, 8).split(16)),
        {"reduce": "cls"},
    ),
    "no parameter yet": (particles(BeforeAnyParameter), zoo.vectors(), {}),
    "keeps": (particles(Keeps), zoo.vectors(), {}),
    "weight norm": (particles(normed), zoo.vectors(), {}),
    "own part": (
        particles(Tied, False),
        zoo.vectors(),
        {"forward": lambda model, batch: model.a(batch)},
    ),
    "frozen child": (particles(zoo.FrozenChild), zoo.vectors(), {}),
}


# Torch's own, where it has no rule for an operation and runs it once a particle.
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(
    "options",
    [
        *({}, {"hsic_batch_size": 8}, {"precision": "high"}, {"precision": "medium"}),
        *({"kernel": "rbf"}, {"unbiased": False}),
    ],
    ids=str,
)
@pytest.mark.parametrize("case", ENSEMBLES)
def test_the_scores_are_those_of_particles_one_by_one(case: str, options: dict[str, Any]) -> None:
    models, batches, own = ENSEMBLES[case]
    one_by_one = run({"e": copy.deepcopy(models)}, batches, **options, **own)
    # bfloat16 rounds differences of the last digit up or down.
    tolerance = 2e-3 if options.get("precision") == "medium" else 2e-5
    same(run({"e": models}, batches, vmap=True, **options, **own), one_by_one, tolerance)


@pytest.mark.parametrize("queued", [False, True])
def test_against_the_oracle(queued: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "accelerated", lambda device: queued)
    models: dict[str, Any] = {
        "A": particles(convolutional),
        "B": particles(convolutional, count=2),
        "single": zoo.seeded(convolutional, seed=9),
    }
    batches = zoo.images()
    reference = reference_compare(models, batches)
    assert largest_error(run(models, batches, vmap=True), reference) <= TOLERANCE


def test_stacked_particles() -> None:
    models, batches = particles(convolutional), zoo.images()
    params, buffers = stack_module_state([m.eval() for m in models])
    stacked = StackedParticles(models[0], params, buffers)
    same(run({"e": stacked}, batches, vmap=True), run({"e": models}, batches))


def test_a_batch_is_one_call_and_a_layer_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    models = [Counted(ran, seed) for seed in range(4)]
    batches = zoo.vectors(64, batch=16)
    formed: list[int] = []
    whole = gram.linear_gram_
    monkeypatch.setattr(
        gram, "linear_gram_", lambda *args: formed.append(len(args[0][0][1])) or whole(*args)
    )
    result = run({"e": models}, batches, vmap=True)
    assert ran == [16] * 4
    rows = len(result.layers("e"))
    first, later = formed[: 4 * rows], formed[4 * rows :]
    assert first == [1] * 4 * rows, "in the first batch every row finds its own scale"
    assert later == [4] * 3 * rows


def test_all_are_centred_where_one_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [zoo.seeded(zoo.Shifted, mean, seed=k) for k, mean in enumerate((0.0, 1e4, 1.0))]
    batches = zoo.vectors(64, batch=16)
    formed: list[int] = []
    whole = gram.centred_gram_
    monkeypatch.setattr(
        gram,
        "centred_gram_",
        lambda *a, **k: formed.append(len(a[0][0][1])) or whole(*a, **k),
    )
    result = run({"e": models}, batches, layers=["lin"], vmap=True)
    assert formed == [1, 3, 3, 3], "in the first batch the one alone"
    reference = reference_compare({"e": models}, batches)
    assert result.particles("e", "e", row="lin", col="lin").loc[0, 2] == pytest.approx(
        reference.pair(("e", 0, "lin"), ("e", 2, "lin")), abs=TOLERANCE
    )


def test_what_forward_makes_of_a_batch_is_seen_by_every_particle() -> None:
    models, batches = particles(zoo.mlp), [(x, x.sum(1)) for x in zoo.vectors()]

    def forward(model: nn.Module, batch: Any) -> Any:
        return model(batch[0] * 2)

    same(
        run({"e": models}, batches, forward=forward, vmap=True),
        run({"e": models}, batches, forward=forward),
    )


@pytest.mark.parametrize(
    ("other", "where"),
    [
        (zoo.mlp(0), "(output)"),
        (Chosen(torch.tanh), "activation"),
        (Chosen(pools=3), "pools"),
        (Chosen().double(), "lin.weight"),
        (Chosen(pools={"act": ["relu", 3]}), "pools"),
        (Chosen(pools=torch.ones(2)), "pools"),
        (Chosen(partial(leaky_relu, negative_slope=0.3)), "activation"),
        (Chosen(lambda x: x - 1), "activation"),
        (hooked(Chosen()), "lin._forward_hooks"),
        (other_forward(Chosen()), "forward"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_particles_of_several_architectures(other: nn.Module, where: str) -> None:
    with pytest.raises(ValueError, match=r'model "e": particle 1 differs from particle 0') as error:
        run({"e": [Chosen(), other]}, zoo.vectors(), vmap=True)
    assert f'"{where}"' in str(error.value)
    assert "leave it out" in str(error.value)


def test_settings_that_are_equal_are_the_same() -> None:
    """Objects and functions of each particle's own, as constructors make them."""

    def made(seed: int) -> Chosen:
        model: Chosen = zoo.seeded(Chosen, seed=seed)
        slope = 0.3
        model.activation = lambda x: leaky_relu(x, slope)
        model.pools = SimpleNamespace(sizes=[1, 2], act="relu", scale=torch.ones(2))
        return model

    models, batches = [made(seed) for seed in range(3)], zoo.vectors()
    same(run({"e": models}, batches, vmap=True), run({"e": models}, batches))


def test_buffers_go_on_with_what_a_pass_gave_them() -> None:
    batches = zoo.vectors(64, batch=16)
    mapped = run({"e": particles(Steps)}, batches, vmap=True)
    same(mapped, run({"e": particles(Steps)}, batches))
    stacked = StackedParticles(Steps(), *stack_module_state(particles(Steps)))
    same(run({"e": stacked}, batches), mapped)


@pytest.mark.parametrize("vmap", [False, True])
def test_a_tied_base_may_be_given_both_its_names(vmap: bool) -> None:
    free, batches = particles(Tied, False), zoo.vectors()
    stacked = StackedParticles(Tied(True), *stack_module_state(free))
    same(run({"e": stacked}, batches, vmap=vmap), run({"e": free}, batches))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("build", [Keeps, normed, Steps])
def test_models_may_run_while_and_after_they_are_compared(build: Any) -> None:
    models, batches = particles(build), zoo.vectors(64, batch=16)
    before, fused = zoo.state_of(models[0]), torch.backends.mha.get_fastpath_enabled()
    expected = run({"e": particles(build)}, batches)
    runs = [iter_compare({"e": models}, batches, vmap=True) for _ in range(2)]
    for step in runs:
        next(step)
    with torch.no_grad():
        copy.deepcopy(models[0])(batches[0])
    ends = [list(step)[-1].result for step in runs]
    assert torch.backends.mha.get_fastpath_enabled() is fused
    zoo.assert_same_state(before, models[0])
    for end in ends:
        same(end, expected)
    models[0](batches[0])


def test_runs_in_several_threads_do_not_meet() -> None:
    models, batches = particles(Tied, False), zoo.vectors(640, batch=16)
    expected = run({"e": models}, batches)
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(run, {"e": models}, batches, vmap=True) for _ in range(3)]
        with torch.no_grad():
            while not all(r.done() for r in runs):
                models[0](batches[0])
    for found in runs:
        same(found.result(), expected)
    assert torch.backends.mha.get_fastpath_enabled()


def test_particles_without_parameters() -> None:
    with pytest.raises(ValueError, match=r'"e" has no parameters .* leave it out'):
        run({"e": [nn.Tanh(), nn.Tanh()]}, zoo.vectors(), vmap=True)


def test_a_model_that_cannot_be_copied() -> None:
    models = particles(Tied, False, count=2)
    for model in models:
        model.lock = threading.Lock()
    with pytest.raises(ValueError, match='model "e"'):
        run({"e": models}, zoo.vectors(), vmap=True)
    one = [models[0], models[0]]
    with pytest.raises(ValueError, match=r'"e" cannot be copied \(TypeError'):
        run({"e": one}, zoo.vectors(), vmap=True)


def test_what_vmap_cannot_map() -> None:
    class Decides(zoo.DataDependent):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.stem(x)[:, :8])

    models = particles(Decides, count=2)
    before = [zoo.state_of(m) for m in models]
    with pytest.raises(CompareError, match=r"leave out vmap=True"):
        run({"e": models}, zoo.vectors(), vmap=True)
    for state, model in zip(before, models, strict=True):
        zoo.assert_same_state(state, model)
    run({"e": models}, zoo.vectors())


def test_models_are_left_as_they_were_found() -> None:
    models = particles(zoo.FrozenChild)
    before = [zoo.state_of(m) for m in models]
    run({"e": models}, zoo.vectors(), vmap=True)
    for state, model in zip(before, models, strict=True):
        zoo.assert_same_state(state, model)


def test_the_explorer_takes_it() -> None:
    from cka_widget import CKAExplorer

    models, batches = particles(zoo.mlp), zoo.vectors()
    explorer = CKAExplorer({"e": models}, batches, vmap=True)
    explorer.run(block=True)
    same(explorer.result, run({"e": models}, batches, layers=explorer.result.layers("e")))


def test_products_of_all_particles_are_not_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of particles lie in turns; they are multiplied where they lie."""
    x = torch.randn(16, 3, 40).transpose(0, 1)
    out = torch.empty(3, 16, 16)
    gram.linear_gram_([(slice(None), out)], x)
    torch.testing.assert_close(out, x @ x.mT)
    assert symmetric.quickest_way(out, x) is symmetric.gemm
