"""`vmap=True`: all particles of an ensemble in one call, with the scores of one after another."""

from __future__ import annotations

import copy
import os
import signal
from typing import Any

import pytest
import torch
import zoo
from checks import TOLERANCE, largest_error, run, same
from oracles import reference_compare
from torch import Tensor, nn
from torch.func import stack_module_state

from cka_widget.engine.compare import compare
from cka_widget.engine.cuda_graph.recordable import Recordable
from cka_widget.engine.errors import CompareError
from cka_widget.engine.grams import accelerator, gram, self_product
from cka_widget.engine.models.particles import StackedParticles, as_passes, bound


def convolutional() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
        *(nn.Conv2d(6, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)),
    )


ENSEMBLES: dict[str, tuple[list[nn.Module], list[Any], dict[str, Any]]] = {
    "mlp": ([zoo.mlp(seed) for seed in range(3)], zoo.vectors(), {}),
    "in place": (zoo.ensemble(zoo.InPlaceChain), zoo.vectors(), {}),
    "convolutions": (zoo.ensemble(convolutional), zoo.images(), {}),
    "residual": (zoo.ensemble(zoo.ResNet, (1, 1, 1, 1), 4, count=2), zoo.images(), {}),
    "called twice": (zoo.ensemble(zoo.CalledTwice), zoo.vectors(), {}),
    "shared module": (zoo.ensemble(zoo.SharedModule), zoo.vectors(), {}),
    "nested": (zoo.ensemble(zoo.Nested), zoo.vectors(), {}),
    "dead": (zoo.ensemble(zoo.Dead), zoo.vectors(), {}),
    "mean of 1e4": (zoo.ensemble(zoo.Shifted, 1e4), zoo.vectors(), {}),
    "tokens": (zoo.ensemble(zoo.TokenClassifier), zoo.token_batches(48, batch=16), {}),
    "masked mean": (
        zoo.ensemble(zoo.TokenClassifier),
        zoo.token_batches(48, batch=16),
        {"reduce": "mean"},
    ),
    "encoder": (
        [zoo.encoder(seed=seed) for seed in range(2)],
        list(torch.randn(48, 5, 8).split(16)),
        {"reduce": "cls"},
    ),
    "no parameter yet": (zoo.ensemble(zoo.BeforeAnyParameter), zoo.vectors(), {}),
    "keeps": (zoo.ensemble(zoo.Keeps), zoo.vectors(), {}),
    "weight norm": (zoo.ensemble(zoo.weight_normed), zoo.vectors(), {}),
    "own part": (
        zoo.ensemble(zoo.Tied, False),
        zoo.vectors(),
        {"forward": lambda model, batch: model.a(batch)},
    ),
    "frozen child": (zoo.ensemble(zoo.FrozenChild), zoo.vectors(), {}),
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
        "A": zoo.ensemble(convolutional),
        "B": zoo.ensemble(convolutional, count=2),
        "single": zoo.seeded(convolutional, seed=9),
    }
    batches = zoo.images()
    reference = reference_compare(models, batches)
    assert largest_error(run(models, batches, vmap=True), reference) <= TOLERANCE


def test_stacked_particles() -> None:
    models, batches = zoo.ensemble(convolutional), zoo.images()
    params, buffers = stack_module_state([m.eval() for m in models])
    stacked = StackedParticles(models[0], params, buffers)
    found, expected = (run({"e": e}, batches, vmap=True) for e in (stacked, models))
    same(found, expected, 1e-9)  # one by one, the scores' last digits are the machine's


def test_a_batch_is_one_call_and_a_layer_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    models = [zoo.Counted(ran, seed) for seed in range(4)]
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
    models, batches = zoo.ensemble(zoo.mlp), [(x, x.sum(1)) for x in zoo.vectors()]

    def forward(model: nn.Module, batch: Any) -> Any:
        return model(batch[0] * 2)

    same(
        run({"e": models}, batches, forward=forward, vmap=True),
        run({"e": models}, batches, forward=forward),
    )


def test_particles_without_parameters() -> None:
    with pytest.raises(ValueError, match=r'"e" has no parameters .* leave it out'):
        run({"e": [nn.Tanh(), nn.Tanh()]}, zoo.vectors(), vmap=True)


def test_what_vmap_cannot_map() -> None:
    class Decides(zoo.DataDependent):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.stem(x)[:, :8])

    models = zoo.ensemble(Decides, count=2)
    before = [zoo.state_of(m) for m in models]
    with pytest.raises(CompareError, match=r"leave out vmap=True"):
        run({"e": models}, zoo.vectors(), vmap=True)
    for state, model in zip(before, models, strict=True):
        zoo.assert_same_state(state, model)
    run({"e": models}, zoo.vectors())


def test_models_are_left_as_they_were_found() -> None:
    models = zoo.ensemble(zoo.FrozenChild)
    before = [zoo.state_of(m) for m in models]
    run({"e": models}, zoo.vectors(), vmap=True)
    for state, model in zip(before, models, strict=True):
        zoo.assert_same_state(state, model)


def test_the_explorer_takes_it() -> None:
    from cka_widget import CKAExplorer

    models, batches = zoo.ensemble(zoo.mlp), zoo.vectors()
    explorer = CKAExplorer({"e": models}, batches, vmap=True)
    explorer.run(block=True)
    same(explorer.result, run({"e": models}, batches, layers=explorer.result.layers("e")))


def test_products_of_all_particles_are_not_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of particles lie in turns; they are multiplied where they lie."""
    x = torch.randn(16, 3, 40).transpose(0, 1)
    out = torch.empty(3, 16, 16)
    gram.linear_gram_([(slice(None), out)], x)
    torch.testing.assert_close(out, x @ x.mT)
    assert self_product.way(out, x) is self_product.gemm


def test_ctrl_c_waits_for_the_end_of_a_mapped_pass() -> None:
    """Torn apart, torch.vmap would leave every later call of the process in its midst."""

    class Pressed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 3:  # not in the short passes of one particle
                os.kill(os.getpid(), signal.SIGINT)
            y: torch.Tensor = self.lin(x)
            ends.append(len(x) > 3)
            return y

    ends: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        compare({"a": [Pressed(), Pressed()]}, zoo.vectors(), vmap=True, progress=False)
    assert any(ends)
    assert torch.vmap(lambda row: row * 2)(torch.ones(2, 3)).sum() == 12
    assert nn.init.uniform_(torch.empty(3)).shape == (3,)


def test_the_call_of_all_particles_stays_on_their_device() -> None:
    """Torch's "meta" stands for a GPU: what takes memory elsewhere is in no recording."""
    meta = torch.device("meta")
    particles = [zoo.resnet18(seed).eval().to(meta) for seed in range(2)]
    (one,) = bound(as_passes({"e": particles}, None, vmap=True))["e"]
    batch = torch.empty(4, 3, 16, 16, device=meta)
    with torch.no_grad(), Recordable(meta) as found:
        one(batch, None)
    assert found.reason is None
