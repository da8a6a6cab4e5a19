"""The interface of torch_cka, held against the float64 oracle with batches counting alike."""

from __future__ import annotations

import itertools
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from oracles import OUTPUT, Reference, cka_of_sums, hsic_song, reference_compare
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from cka_widget import torch_cka_run
from cka_widget.engine.errors import CKAWarning, CompareError
from cka_widget.torch_cka import CKA, EnsembleCKA

KEYS = [
    "model1_name",
    "model2_name",
    "CKA",
    "model1_layers",
    "model2_layers",
    "dataset1_name",
    "dataset2_name",
]


class Images(TensorDataset):
    """Images with labels and a name of two lines."""

    def __init__(self, n: int = 96, seed: int = 0) -> None:
        labels = torch.arange(n) % 7
        super().__init__(torch.cat(zoo.images(n, 8, seed=seed)), labels)

    def __repr__(self) -> str:
        return "Dataset Images\n    of two lines"


def loader(n: int = 96, batch_size: int = 32, **options: Any) -> DataLoader[Any]:
    return DataLoader(Images(n), batch_size=batch_size, **options)


def equally_weighted(
    reference: Reference, a: tuple[str, int, str], b: tuple[str, int, str]
) -> float:
    """Mean over batches of each HSIC, every batch counting alike, then the ratio."""
    k, m = (reference.grams((*key[:2], key[2] or OUTPUT), None) for key in (a, b))
    pairs = [(hsic_song(x, y), hsic_song(x, x), hsic_song(y, y)) for x, y in zip(k, m, strict=True)]
    return cka_of_sums(*np.array(pairs).sum(0))


def expected(reference: Reference, rows: list[str], cols: list[str]) -> np.ndarray:
    return np.array(
        [[equally_weighted(reference, ("a", 0, r), ("b", 0, c)) for c in cols] for r in rows]
    )


@pytest.mark.parametrize("n", [96, 96 + 17])
def test_every_module_is_a_row_in_running_order(n: int) -> None:
    """Also with in-place layers and a smaller last batch."""
    a, b = zoo.resnet18(0, width=4), zoo.resnet34(1, width=4)
    cka = CKA(a, b, model1_name="A", model2_name="B")
    cka.compare(loader(n))
    found = cka.export()
    reference = reference_compare({"a": a, "b": b}, [x for x, _ in loader(n)])
    assert found["model1_layers"] == [r.replace(OUTPUT, "") for r in reference.labels("a")]
    assert found["model2_layers"] == [r.replace(OUTPUT, "") for r in reference.labels("b")]
    some = slice(None, None, 7)
    rows, cols = found["model1_layers"][some], found["model2_layers"][some]
    np.testing.assert_allclose(
        found["CKA"][some, some], expected(reference, rows, cols), atol=1e-4, rtol=0
    )


def test_models_are_named_by_their_class() -> None:
    cka = CKA(nn.DataParallel(zoo.resnet18(0, width=4)), zoo.mlp(0))
    assert (cka.model1_name, cka.model2_name) == ("ResNet", "Sequential")


def test_the_keys_of_the_export() -> None:
    cka = CKA(
        zoo.resnet18(0, width=4),
        zoo.resnet18(1, width=4),
        model1_name="A",
        model2_name="B",
        model1_layers=["fc", "conv1"],
        model2_layers=["layer1", "layer2", "fc"],
    )
    with pytest.raises(RuntimeError, match="call compare"):
        cka.export()
    cka.compare(loader())
    found = cka.export()
    assert list(found) == KEYS
    assert (found["model1_name"], found["model2_name"]) == ("A", "B")
    assert found["model1_layers"] == ["conv1", "fc"]  # as they ran
    assert found["model2_layers"] == ["layer1", "layer2", "fc"]
    assert found["dataset1_name"] == found["dataset2_name"] == "Dataset Images"
    assert isinstance(found["CKA"], Tensor)
    assert found["CKA"].shape == (2, 3)
    assert found["CKA"].dtype == torch.float32
    assert list(cka.result.to_dict()) == KEYS
    assert cka.result.stderr("A", "B").isna().all(axis=None)  # three blocks are too few


def test_batches_count_alike_and_the_result_says_so() -> None:
    a, b = zoo.resnet18(0, width=4), zoo.resnet18(1, width=4)
    cka = CKA(a, b, model1_name="A", model2_name="B", model1_layers=["fc"], model2_layers=["fc"])
    cka.compare(loader(6 * 16 + 5, 16))
    assert cka.result.provenance["batch_weights"] == "equal"
    assert cka.result.matrix("A", "B").iat[0, 0] == pytest.approx(cka.export()["CKA"].item())
    assert cka.result.blocks == 7
    assert cka.result.stderr("A", "B").iat[0, 0] > 0


README = """
    from torch_cka import CKA
    model1 = resnet18(0)
    model2 = resnet34(1)
    dataloader = DataLoader(dataset, batch_size=32, shuffle=False)
    cka = CKA(model1, model2, model1_name="ResNet18", model2_name="ResNet34",
              model1_layers=["layer1", "layer2.0.conv1", "fc"], device="cpu")
    cka.compare(dataloader)
    results = cka.export()
    cka.plot_results(save_path=folder / "compare.png", title="Two ResNets")
"""


def test_a_script_with_its_import_line_changed(tmp_path: Path) -> None:
    script = textwrap.dedent(README).replace("from torch_cka", "from cka_widget.torch_cka")
    names: dict[str, Any] = {
        "resnet18": lambda seed: zoo.resnet18(seed, width=4),
        "resnet34": lambda seed: zoo.resnet34(seed, width=4),
        "DataLoader": DataLoader,
        "dataset": Images(),
        "folder": tmp_path,
    }
    exec(script, names)
    assert names["results"]["CKA"].shape[0] == 3
    assert names["results"]["CKA"].shape[1] == len(names["results"]["model2_layers"]) > 100
    assert (tmp_path / "compare.png").stat().st_size > 10_000


def test_one_shuffled_loader_is_drawn_once() -> None:
    data = torch.cat(zoo.images(96, 8))
    drawn = zoo.CountingLoader(data, 32)
    net = zoo.resnet18(0, width=4)
    cka = CKA(net, net, model1_name="A", model2_name="B", model1_layers=["fc"])
    cka.compare(drawn)
    assert drawn.drawn == 1
    assert cka.export()["CKA"][0, -1] == pytest.approx(1.0, abs=1e-5)
    assert cka.export()["dataset1_name"] == "CountingLoader"


def test_one_model_under_two_loaders() -> None:
    """Unrelated inputs: not 1, as two hooks on one module would make it."""
    net = zoo.resnet18(0, width=4)
    cka = CKA(net, net, model1_name="clean", model2_name="other", model1_layers=["fc"])
    with pytest.warns(CKAWarning, match="first 3 are compared"):
        cka.compare(loader(), DataLoader(Images(128, seed=1), batch_size=32))
    assert abs(cka.export()["CKA"][0, -1]) < 0.5
    assert cka.result.samples == 96


def test_two_models_of_one_name() -> None:
    with pytest.warns(CKAWarning, match="Both models are called"):
        cka = CKA(zoo.mlp(0), zoo.mlp(1))
    cka.compare(zoo.vectors())
    found = cka.export()
    assert found["model1_name"] == found["model2_name"] == "Sequential"
    assert found["CKA"].shape == (6, 6)


def test_a_repeated_module_gives_one_row_a_call() -> None:
    cka = CKA(zoo.seeded(zoo.CalledTwice), zoo.mlp(0))
    cka.compare(zoo.vectors())
    names = cka.export()["model1_layers"]
    assert names[:4] == ["stem", "act#1", "step#1", "act#2"]
    assert names[-2:] == ["head", ""]


def test_an_undefined_layer_is_nan_and_says_why() -> None:
    cka = CKA(zoo.seeded(zoo.NeverCalled), zoo.mlp(0), model1_layers=["aux.0", "head"])
    with pytest.warns(CKAWarning, match=r'"aux.0" is undefined \(NaN\): never ran'):
        cka.compare(zoo.vectors())
    found = cka.export()
    assert found["model1_layers"] == ["head", "aux.0"]
    assert found["CKA"][1].isnan().all()
    assert not found["CKA"][0].isnan().any()


def test_a_misspelt_layer_is_an_error_with_the_nearest_name() -> None:
    cka = CKA(zoo.resnet18(0, width=4), zoo.mlp(0), model1_layers=["layer1.0.cnv1"])
    with pytest.raises(ValueError, match=r'did you mean "layer1.0.conv1"'):
        cka.compare(loader())


def test_a_scripted_child_is_one_row() -> None:
    """It refuses hooks by the module's own method; none stays behind."""
    scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
    net, plain = nn.Sequential(nn.Linear(8, 8), scripted, nn.Linear(8, 4)), zoo.mlp(0)
    cka = CKA(net, plain, "a", "b")
    cka.compare(zoo.vectors())
    assert cka.export()["model1_layers"][-2:] == ["2", ""]
    assert not any(module._forward_hooks for module in net.modules())


def failing(batches: list[Tensor], error: BaseException) -> Iterator[Tensor]:
    yield from batches
    raise error


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError("disk"), CompareError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_what_finished_batches_gave_is_kept(
    error: BaseException, raised: type[BaseException]
) -> None:
    """Batches counting alike, as in a comparison of these batches alone."""
    a, b, batches = zoo.mlp(0), zoo.mlp(1), [*zoo.vectors(64, batch=32), *zoo.vectors(9, batch=9)]
    whole, cut = CKA(a, b, "a", "b"), CKA(a, b, "a", "b")
    whole.compare(batches)
    with pytest.raises(raised) as info:
        cut.compare(failing(batches, error))
    assert info.value.result is cut.result
    assert cut.result.provenance["batch_weights"] == "equal"
    torch.testing.assert_close(cut.export()["CKA"], whole.export()["CKA"])
    assert cut.export()["model1_layers"] == whole.export()["model1_layers"]
    ensembles = EnsembleCKA([a, b]), EnsembleCKA([a, b])
    ensembles[0].compare(batches)
    with pytest.raises(raised):
        ensembles[1].compare(failing(batches, error))
    torch.testing.assert_close(ensembles[1].export()["CKA"], ensembles[0].export()["CKA"])


def test_an_interrupt_outside_the_engine_leaves_the_models_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here in the progress bar, with the error kept, as a notebook keeps the last one."""
    net = zoo.mlp(0).train()
    before = zoo.state_of(net)
    shown: list[int] = []

    def update(bar: Any, n: int) -> None:
        shown.append(n)
        if len(shown) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch_cka_run.tqdm, "update", update)
    cka = CKA(net, net, "a", "b")
    with pytest.raises(KeyboardInterrupt) as info:
        cka.compare(zoo.vectors(96, batch=32))
    zoo.assert_same_state(before, net)
    assert not any(module._forward_hooks for module in net.modules())
    assert info.value.result is cka.result
    assert cka.result.batches == 2


def test_a_comparison_that_gave_nothing_leaves_no_result() -> None:
    cka = CKA(zoo.mlp(0), zoo.mlp(1), "a", "b")
    cka.compare(zoo.vectors())
    with pytest.raises(CompareError):
        cka.compare(failing([], OSError("disk")))
    with pytest.raises(RuntimeError, match="call compare"):
        cka.export()


def test_models_stay_as_they_were() -> None:
    net, other = zoo.seeded(zoo.FrozenChild), zoo.mlp(0)
    before = zoo.state_of(net)
    cka = CKA(net, other)
    cka.compare(zoo.vectors())
    cka.export()
    zoo.assert_same_state(before, net)


def nets(count: int = 3) -> list[nn.Module]:
    return [zoo.resnet18(seed, width=4) for seed in range(count)]


def test_the_mean_over_pairs_of_particles() -> None:
    models, names = nets(), ["conv1", "layer2", "fc"]
    cka = EnsembleCKA(models, model_layers=[names] * 3, device="cpu")
    cka.compare(loader(96 + 9))
    found = cka.export()
    reference = reference_compare({"e": models}, [x for x, _ in loader(96 + 9)], {"e": names})
    pairs = list(itertools.permutations(range(3), 2))
    mean = [
        [
            np.mean([equally_weighted(reference, ("e", p, r), ("e", q, c)) for p, q in pairs])
            for c in names
        ]
        for r in names
    ]
    np.testing.assert_allclose(found["CKA"], mean, atol=1e-4, rtol=0)
    assert list(found) == [*KEYS, "model_names"]
    assert found["model1_layers"] == found["model2_layers"] == names
    assert found["model_names"] == ["ResNet"] * 3
    assert found["model1_name"] == "Ensemble"


def test_an_ensemble_of_many_layers_exports_and_plots(tmp_path: Path) -> None:
    deep = [zoo.seeded(zoo.ResNet, (8, 8, 8), width=4, seed=seed).eval() for seed in range(2)]
    cka = EnsembleCKA(nn.ModuleList(deep), model_names=["one", "two"])
    cka.compare(loader())
    assert cka.export()["CKA"].shape[0] == len(cka.export()["model1_layers"]) > 150
    cka.plot_results(save_path=str(tmp_path / "ensemble.png"))
    assert (tmp_path / "ensemble.png").exists()


def test_particles_with_layers_of_their_own() -> None:
    """The i-th layer of one stands against the i-th of the other."""
    a, b = zoo.resnet18(0, width=4), zoo.resnet34(1, width=4)
    layers = [["layer1", "fc"], ["layer3.1", "fc"]]
    cka = EnsembleCKA([a, b], model_layers=layers)
    cka.compare(loader())
    pair = CKA(a, b, model1_name="a", model2_name="b", model1_layers=layers[0])
    pair.model2_layers = layers[1]
    pair.compare(loader())
    one = pair.export()["CKA"]
    torch.testing.assert_close(cka.export()["CKA"], (one + one.T) / 2, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": nets(1)}, "at least two models, not 1"),
        ({"models": nets(2), "model_names": ["a"]}, "model_names has 1 entries for 2"),
        ({"models": nets(2), "model_layers": [["fc"]]}, "model_layers has 1 entries for 2"),
        ({"models": nets(2), "model_layers": [["fc"], []]}, "equally many layers"),
    ],
)
def test_ensembles_that_cannot_be_compared(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnsembleCKA(**options)


def test_nothing_is_shown_before_a_comparison() -> None:
    with pytest.raises(RuntimeError, match="call compare"):
        EnsembleCKA(nets(2)).export()


def test_a_plot_needs_no_screen(tmp_path: Path) -> None:
    cka = CKA(zoo.mlp(0), zoo.mlp(1), "A", "B")
    cka.compare(zoo.vectors())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cka.plot_results(save_path=str(tmp_path / "a.png"))
