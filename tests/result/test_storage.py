"""Results that last: save and load, merge, concat."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import zoo
from checks import TOLERANCE, largest_error, run
from oracles import reference_compare
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader

import cka_widget as cw
from cka_widget.result.result import CKAResult
from cka_widget.result.scores import NEVER_TOGETHER
from cka_widget.torch_cka import CKA

MODELS = {
    "ensemble ü/<b>": [zoo.mlp(seed) for seed in range(3)],
    "single": zoo.seeded(zoo.NeverCalled),
}


def result(n: int = 96, batch: int = 12, seed: int = 0, **options: Any) -> CKAResult:
    return run(MODELS, zoo.vectors(n, batch=batch, seed=seed), **options)


def assert_equal(a: CKAResult, b: CKAResult) -> None:
    assert a.models == b.models
    assert repr(a) == repr(b)
    assert (a.rows, a.row_reasons) == (b.rows, b.row_reasons)
    assert (a.samples, a.batches, a.blocks) == (b.samples, b.batches, b.blocks)
    assert (a.warnings, dict(a.provenance)) == (b.warnings, dict(b.provenance))
    for x in a.models:
        for y in a.models:
            for what in ("matrix", "stderr", "spread"):
                pd.testing.assert_frame_equal(getattr(a, what)(x, y), getattr(b, what)(x, y))
            for mine, theirs in zip(a.interval(x, y), b.interval(x, y), strict=True):
                pd.testing.assert_frame_equal(mine, theirs)
    pd.testing.assert_frame_equal(a.to_frame(), b.to_frame())


def test_everything_survives_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    saved = result(layers={"single": ["aux.0", "head"]})
    saved.save(path)
    loaded = cw.load(path)
    assert_equal(saved, loaded)
    assert loaded.reasons("single") == ["never ran", None]
    assert loaded.why("ensemble ü/<b>", "single", "0", "aux.0") == "single aux.0: never ran"


def test_loading_twice_and_saving_again_changes_nothing(tmp_path: Path) -> None:
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    result().save(first)
    cw.load(str(first)).save(str(second))
    assert_equal(cw.load(first), cw.load(second))


def test_a_loaded_result_can_be_merged(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    first, second = result(seed=1), result(seed=2)
    first.save(path)
    assert_equal(cw.load(path).merge(second), first.merge(second))


def test_names_with_dots_hashes_and_aliases_survive(tmp_path: Path) -> None:
    saved = run({"a": zoo.seeded(zoo.CalledTwice), "b": zoo.seeded(zoo.Nested)}, zoo.vectors())
    saved.save(tmp_path / "a")
    loaded = cw.load(tmp_path / "a")
    assert "act#2" in loaded.layers("a")
    alias, layer = next(iter(loaded.rows[1].aliases.items()))
    cell = loaded.particles("b", "b", row=alias, col=layer)
    assert cell.iat[0, 0] == pytest.approx(1.0)


def test_loading_and_using_a_result_needs_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    result().save(path)
    result(seed=1).save(tmp_path / "other")
    script = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchinfo", "ipywidgets", "anywidget"):
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocked())
import cka_widget as cw
result = cw.load({str(path)!r})
a, b = result.models
result.matrix(a, b), result.stderr(a, b), result.to_frame(), result.to_dict()
result.particles(a, a, row="0", col="2")
other = cw.load({str(tmp_path / "other")!r})
result.merge(other).save({str(tmp_path / "both")!r})
cw.concat([result, result])
print(result.matrix(a, b).iat[0, 0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == cw.load(path).matrix(*MODELS).iat[0, 0]
    blocked = script.replace("import cka_widget as cw", "import torch")
    failed = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True)
    assert "torch is blocked" in failed.stderr  # the blocking itself works


@pytest.mark.parametrize("kept", [0, 5, 200, 0.5, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "run.safetensors"
    result().save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r"run\.safetensors is damaged"):
        cw.load(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="was not written by cka_widget"):
        cw.load(path)
    path.write_text("hello")
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        cw.load(path)
    with pytest.raises(FileNotFoundError):
        cw.load(tmp_path / "nothing")


def _edit(path: Path, **changes: Any) -> None:
    """Rewrite the metadata of a saved file, as one of format 2, which has no checksum."""
    with safe_open(path, framework="np") as file:
        text = json.loads(file.metadata()["cka_widget"])
    text.update({"version": 2} | changes)
    text = {k: v for k, v in text.items() if v is not ...}
    save_file(load_file(path), path, metadata={"cka_widget": json.dumps(text)})


def test_a_newer_file_asks_for_an_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    result().save(path)
    _edit(path, version=99, rows="of a kind yet unknown")
    with pytest.raises(ValueError, match=r"format 99, newer than the \d+ .* upgrade"):
        cw.load(path)


def test_a_file_of_format_1_has_scores_and_no_intervals(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    new = result()
    new.save(path)
    arrays = {k: v for k, v in load_file(path).items() if not k.endswith("moments")}
    with safe_open(path, framework="np") as file:
        text = json.loads(file.metadata()["cka_widget"])
    save_file(arrays, path, metadata={"cka_widget": json.dumps(text | {"version": 1})})
    old = cw.load(path)
    a, b = new.models[0], new.models[-1]
    pd.testing.assert_frame_equal(old.matrix(a, b), new.matrix(a, b))
    pd.testing.assert_frame_equal(old.stderr(a, b), new.stderr(a, b))
    assert new.interval(a, b)[0].notna().any(axis=None)
    assert old.interval(a, b)[0].isna().all(axis=None)
    assert old.merge(result()).interval(a, b)[0].isna().all(axis=None)


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_an_older_format_has_a_null(tmp_path: Path, version: int) -> None:
    """As if its blocks had one size, as here; and, where it has moments, no lighter a tail."""
    path = tmp_path / "run.safetensors"
    new = result()
    new.save(path)
    gone = ("chance2", "chance4", *(["moments"] if version == 1 else []))
    arrays = {k: v for k, v in load_file(path).items() if not k.endswith(gone)}
    with safe_open(path, framework="np") as file:
        text = json.loads(file.metadata()["cka_widget"])
    save_file(arrays, path, metadata={"cka_widget": json.dumps(text | {"version": version})})
    old = cw.load(path)
    for a, b in ((a, b) for a in new.models for b in new.models):
        pd.testing.assert_frame_equal(old.null(a, b), new.null(a, b))
        assert new.above_chance(a, b).to_numpy()[old.above_chance(a, b).to_numpy()].all()
        assert old.above_chance(a, b).any(axis=None)
    if version == 2:
        assert not (old.sums.chance4 < 0.99 * new.sums.chance4).any()
    both = old.merge(result(seed=5))
    np.testing.assert_allclose(both.sums.chance4, old.sums.chance4 + result(seed=5).sums.chance4)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": ...},
        {"weight": ...},
        {"version": "one"},
        {"rows": []},
        {"rows": [{"name": "a", "layers": ["x"], "n_particles": 1}]},
        {"row_reasons": []},
        {"row_reasons": "abc"},
        {"version": float("inf")},
        {"version": True},
        {"samples": "abc"},
        {"samples": -1},
        {"weight": None},
        {"weight": float("nan")},
        {"blocks": None},
        {"blocks": 2.5},
        {"batches": False},
        {"warnings": "a sentence"},
        {"warnings": [1]},
        {"provenance": []},
        {"blocks": 0},
        {"weight": 0.0},
        {"samples": 10**30},
        {"provenance": {"seconds": "long"}},
        {"provenance": {"seconds": float("inf")}},
        {"provenance": {"sigma": [1.0]}},
        {"provenance": {"sigma": 1.0}},
        {"provenance": {"seeds": [None]}},
        {"provenance": {"run_ids": "abc"}},
    ],
)
def test_a_file_with_spoilt_metadata_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "run.safetensors"
    result().save(path)
    _edit(path, **changes)
    with pytest.raises(ValueError, match=r"run\.safetensors is damaged"):
        cw.load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 3},
        {"layers": "0123456"},
        {"layers": [None]},
        {"n_particles": 1.0},
        {"n_particles": 0},
        {"layers": ["0"] * 5},
        {"aliases": []},
        {"aliases": {"x": "no layer"}},
        {"skipped": {"aux": 1}},
        {"more": "of a newer format"},
    ],
)
def test_a_file_with_spoilt_rows_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "run.safetensors"
    saved = run({"a": zoo.mlp()}, zoo.vectors())
    saved.save(path)
    _edit(path, rows=[asdict(saved.rows[0])])
    assert_equal(cw.load(path), saved)
    _edit(path, rows=[asdict(saved.rows[0]) | changes])
    with pytest.raises(ValueError, match=r"run\.safetensors is damaged"):
        cw.load(path)


def test_an_ensemble_without_its_pooled_sums_is_refused(tmp_path: Path) -> None:
    """They hold its error bars: those of single pairs would be shown in their place."""
    path = tmp_path / "run.safetensors"
    result().save(path)
    _edit(path)
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    arrays = {k: v for k, v in load_file(path).items() if not k.startswith("pooled.")}
    save_file(arrays, path, metadata=metadata)
    with pytest.raises(ValueError, match=r"is damaged: KeyError: 'pooled\."):
        cw.load(path)


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_sums_of_another_precision_are_refused(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "run.safetensors"
    result().save(path)
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    save_file({k: v.astype(dtype) for k, v in load_file(path).items()}, path, metadata=metadata)
    with pytest.raises(ValueError, match="is damaged"):
        cw.load(path)


def test_json_too_deep_to_read_is_refused(tmp_path: Path) -> None:
    path, deep = tmp_path / "run.safetensors", 100_000
    save_file({"h": np.zeros(1)}, path, metadata={"cka_widget": "[" * deep + "]" * deep})
    with pytest.raises(ValueError, match=r"run\.safetensors is damaged: RecursionError"):
        cw.load(path)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"create the directory .*missing first"):
        result().save(tmp_path / "missing" / "run.safetensors")
    with pytest.raises(OSError, match="cannot save"):
        result().save(tmp_path)


def test_nothing_is_pickled(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    result().save(path)
    assert path.read_bytes()[8:9] == b"{"
    assert all(a.dtype.kind in "fi" for a in load_file(path).values())


def test_merged_halves_equal_the_whole() -> None:
    batches = zoo.vectors(96, batch=12)
    whole = run(MODELS, batches)
    merged = run(MODELS, batches[:3]).merge(run(MODELS, batches[3:]))
    for a in whole.models:
        for b in whole.models:
            np.testing.assert_allclose(merged.matrix(a, b), whole.matrix(a, b), atol=1e-6)
    frame = merged.to_frame()
    np.testing.assert_allclose(frame["stderr"], whole.to_frame()["stderr"], atol=1e-6)
    assert (merged.samples, merged.batches, merged.blocks) == (96, 8, 8)
    seconds = merged.provenance["seconds"]
    assert seconds > 0


def test_merging_leaves_both_inputs_as_they_were() -> None:
    a, b = result(seed=1), result(seed=2)
    before = a.sums.h.copy(), b.sums.h.copy()
    a.merge(b)
    np.testing.assert_array_equal(a.sums.h, before[0])
    np.testing.assert_array_equal(b.sums.h, before[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "*.0"}, "same models, particles and layers"),
        ({"kernel": "rbf"}, "same kernel"),
        ({"unbiased": False}, "same unbiased"),
        ({"reduce": "mean"}, "same reduce"),
    ],
)
def test_results_that_cannot_be_merged(options: dict[str, Any], message: str) -> None:
    models = {"a": zoo.seeded(zoo.Nested)}
    plain, other = run(models, zoo.vectors()), run(models, zoo.vectors(), **options)
    with pytest.raises(ValueError, match=message):
        plain.merge(other)


def test_batches_that_count_alike_do_not_merge_with_those_that_do_not() -> None:
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors()
    plain, layers = run(models, batches, layers=["0", "4"]), (["0", "4"], ["0", "4"])
    alike = CKA(*models.values(), *models, *layers)
    alike.compare(batches)
    for action in (lambda: plain.merge(alike.result), lambda: cw.concat([alike.result, plain])):
        with pytest.raises(ValueError, match=r"the same batch_weights in all: .*'samples'"):
            action()
    first = alike.result
    alike.compare(batches)
    twice = first.merge(alike.result)
    np.testing.assert_allclose(twice.matrix("a", "b"), first.matrix("a", "b"))


def parts() -> tuple[CKAResult, CKAResult]:
    batches = zoo.vectors(96, batch=12)
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    return (
        run(models, batches, layers={"a": ["0", "1"], "b": ["0"]}),
        run(models, batches, layers={"a": ["1", "4"], "b": ["4"]}),
    )


def test_concat_knows_what_was_never_computed_together() -> None:
    first, second = parts()
    both = cw.concat([first, second])
    assert both.layers("a") == ["0", "1", "4"]
    assert both.layers("b") == ["0", "4"]
    reference = reference_compare({"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors(96, batch=12))
    expected = reference.matrix("a", "b", both.layers("a"), both.layers("b"))
    expected[0, 1] = expected[2, 0] = np.nan
    np.testing.assert_allclose(both.matrix("a", "b"), expected, atol=TOLERANCE)
    assert both.why("a", "b", "0", "4") == NEVER_TOGETHER
    assert both.why("a", "b", "4", "0") == NEVER_TOGETHER
    assert both.why("a", "b", "1", "0") is None
    assert both.stderr("a", "b").notna().equals(both.matrix("a", "b").notna())
    assert both.reasons("a") == [None, None, None]


def test_a_concat_can_be_saved_and_merged(tmp_path: Path) -> None:
    both = cw.concat(parts())
    both.save(tmp_path / "both")
    loaded = cw.load(tmp_path / "both")
    assert_equal(both, loaded)
    twice = loaded.merge(cw.concat(parts()))
    assert twice.why("a", "b", "0", "4") == NEVER_TOGETHER
    np.testing.assert_allclose(twice.matrix("a", "b"), both.matrix("a", "b"), atol=1e-12)


def test_the_bandwidths_of_a_concat_are_those_of_its_rows() -> None:
    models, batches = {"a": zoo.mlp(0), "b": [zoo.mlp(1), zoo.mlp(2)]}, zoo.vectors(96, batch=12)
    whole = run(models, batches, layers=["0", "1", "4"], kernel="rbf")
    split = [run(models, batches, layers=part, kernel="rbf") for part in (["0", "1"], ["4", "1"])]
    both = cw.concat(split)
    assert both.layers("b") == whole.layers("b")
    assert both.provenance["sigma"] == pytest.approx(whole.provenance["sigma"])
    assert cw.concat(parts()).provenance["sigma"] is None


def test_a_merge_keeps_the_seeds_of_both() -> None:
    def seeded(seed: int) -> CKAResult:
        data = zoo.vectors(48, batch=48)[0]
        generator = torch.Generator().manual_seed(seed)
        loader = DataLoader(data, batch_size=16, shuffle=True, generator=generator)
        return run({"a": zoo.mlp()}, loader)

    one, two = seeded(1), seeded(2)
    assert one.merge(two).provenance["seeds"] == [1, 2]
    assert one.merge(seeded(1)).provenance["seeds"] == [1]
    assert result().merge(result()).provenance["seeds"] is None


def test_a_misspelt_layer_offers_the_nearest() -> None:
    found = run({"a": zoo.resnet18(width=4)}, zoo.images(16, 8, 8))
    with pytest.raises(KeyError, match=r'did you mean "layer1\.0\.conv1"'):
        found.why("a", "a", "layer1.0.cnv1", "fc")
    with pytest.raises(KeyError, match='did you mean "fc"'):
        found.particles("a", "a", row="fc", col="fcc")


class Shared(nn.Module):
    """One linear layer under two names, called twice where asked to."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls
        self.one = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)
        self.other = self.one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.calls):
            x = torch.tanh(self.other(x))
        return self.head(x)


@pytest.mark.parametrize(("calls", "ending"), [(1, ""), (2, "#2")])
def test_a_shared_module_is_found_by_the_name_it_was_asked_by(calls: int, ending: str) -> None:
    found = run({"a": Shared(calls)}, zoo.vectors(), layers=["other", "head"])
    assert found.layers("a")[-2:] == [f"one{ending}", "head"]
    for name in (f"one{ending}", f"other{ending}"):
        cell = found.particles("a", "a", row=name, col="head").iat[0, 0]
        assert cell == found.matrix("a", "a").loc[f"one{ending}", "head"]


def test_concat_of_ensembles_keeps_their_error_bars() -> None:
    models = {"e": [zoo.mlp(seed) for seed in range(3)]}
    batches = zoo.vectors(96, batch=12)
    split = [run(models, batches, layers=[layer]) for layer in ("0", "4")]
    both, whole = cw.concat(split), run(models, batches, layers=["0", "4"])
    diagonal = np.eye(2, dtype=bool)
    np.testing.assert_allclose(
        both.stderr("e", "e").to_numpy()[diagonal],
        whole.stderr("e", "e").to_numpy()[diagonal],
        rtol=1e-5,  # float32 Grams beside other rows are multiplied in another order
    )
    assert both.matrix("e", "e").isna().to_numpy().tolist() == (~diagonal).tolist()


def test_concat_adds_models() -> None:
    batches = zoo.vectors(96, batch=12)
    both = cw.concat([run({"a": zoo.mlp(0)}, batches), run({"b": zoo.mlp(1)}, batches)])
    assert both.models == ("a", "b")
    assert both.matrix("a", "b").isna().all(axis=None)
    assert both.matrix("a", "a").notna().all(axis=None)
    reference = reference_compare({"b": zoo.mlp(1)}, batches)
    assert largest_error(both, reference, pairs=[("b", "b")]) <= TOLERANCE


def test_results_over_other_data_cannot_stand_side_by_side() -> None:
    models = {"a": zoo.mlp(0)}
    with pytest.raises(ValueError, match="same data: 48 and 36 samples"):
        cw.concat([run(models, zoo.vectors(48)), run(models, zoo.vectors(36))])
    with pytest.raises(ValueError, match="3 and 4 batches"):
        cw.concat([run(models, zoo.vectors(48)), run(models, zoo.vectors(48, batch=12))])
    with pytest.raises(ValueError, match="at least one"):
        cw.concat([])
