"""The exported page: what stands in the file. How it behaves: tests/browser/test_page.py."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checks import run
from torch import nn

from cka_widget.engine.measures.cka import CKA
from cka_widget.engine.measures.mutual_knn import MutualKNN
from cka_widget.engine.measures.rsa import RSA
from cka_widget.result.cell.mds import angular_distance, classical_mds, similarity_order
from cka_widget.result.export import page as page_module
from cka_widget.result.export.page_data import View
from cka_widget.result.keys import Cell, LayerKey
from cka_widget.result.particle_stats import judge
from cka_widget.result.result import CKAResult

HOSTILE = '<img src=x onerror="alert(1)"></script><script>alert(2)</script><!--'


def mlp(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 4))


@pytest.fixture(scope="module")
def result() -> CKAResult:
    torch.manual_seed(0)
    models = {"wide net": [mlp(16) for _ in range(3)], "narrow net": [mlp(5) for _ in range(2)]}
    return run(models, [torch.randn(20, 6) for _ in range(6)])


def data_of(page: str) -> dict[str, Any]:
    """The data block, as the browser finds it."""
    found = re.findall(r'<script type="application/json" id="cka-data">(.*?)</script>', page)
    assert len(found) == 1
    data: dict[str, Any] = json.loads(found[0])
    return data


def shown(data: dict[str, Any]) -> dict[str, Any]:
    """The measure that is shown first."""
    measure: dict[str, Any] = data["measures"][data["start"]["measure"]]
    return measure


def full(half: str) -> np.ndarray:
    """A symmetric matrix from the page."""
    values = np.frombuffer(base64.b64decode(half), "<f4")
    size = int((np.sqrt(8 * len(values) + 1) - 1) / 2)
    whole = np.zeros((size, size))
    whole[np.triu_indices(size)] = values
    return np.triu(whole) + np.triu(whole, 1).T


def test_the_matrices_are_the_results(result: CKAResult) -> None:
    data = data_of(result.to_html())
    wide, narrow = (model["layers"] for model in data["models"])
    assert [wide, narrow] == [result.layers(name) for name in result.models]
    for kind, frame in (
        ("mean", result.matrix),
        ("stderr", result.stderr),
        ("spread", result.spread),
        ("null", result.null),
        ("above", result.above_chance),
    ):
        whole = full(shown(data)["matrices"][kind])
        blocks = {("wide net", "narrow net"): whole[: len(wide), len(wide) :]}
        blocks["narrow net", "wide net"] = whole[len(wide) :, : len(wide)]
        blocks["wide net", "wide net"] = whole[: len(wide), : len(wide)]
        for names, block in blocks.items():
            np.testing.assert_allclose(block, frame(*names).to_numpy(float), atol=1e-6)


def test_the_particles_are_the_results(result: CKAResult) -> None:
    scores = full(shown(data_of(result.to_html()))["particles"]["scores"])
    wide = len(result.layers("wide net"))
    found = scores[1::wide][:3, 3 * wide :: len(result.layers("narrow net"))]
    layers = {"row": result.layers("wide net")[1], "col": result.layers("narrow net")[0]}
    expected = result.particles("wide net", "narrow net", **layers).to_numpy()
    np.testing.assert_allclose(found[:, :2], expected, atol=1e-6)


def test_many_particles_are_left_out_with_a_sentence(result: CKAResult) -> None:
    assert not data_of(result.to_html())["particles_note"]
    page = result.to_html(max_particle_bytes=100)
    data = data_of(page)
    assert shown(data)["particles"] is None
    assert "left out" in data["particles_note"]
    assert len(page) < len(result.to_html())


def test_single_models_have_no_particles_to_show() -> None:
    data = data_of(run({"one": mlp(4)}, [torch.randn(20, 6)]).to_html())
    assert shown(data)["particles"] is None
    assert not data["particles_note"]
    assert "spread" not in shown(data)["matrices"]


def test_the_biased_estimator_has_no_chance_level() -> None:
    data = data_of(run({"one": mlp(4)}, [torch.randn(20, 6)], unbiased=False).to_html())
    assert "null" not in shown(data)["matrices"]
    assert shown(data)["setting"].endswith("biased, linear")


def test_a_result_without_a_block_still_gives_a_page() -> None:
    data = data_of(run({"one": mlp(4)}, [torch.randn(2, 6)]).to_html())
    assert np.isnan(full(shown(data)["matrices"]["mean"])).all()
    assert set(data["models"][0]["reasons"]) == {"too few samples"}


@pytest.fixture(scope="module")
def several() -> CKAResult:
    torch.manual_seed(0)
    models = {"many": [mlp(16) for _ in range(3)], "one": mlp(5)}
    measures = [MutualKNN(k=3), CKA(kernel="rbf"), RSA(), CKA(unbiased=False, name=HOSTILE)]
    return run(models, [torch.randn(20, 6) for _ in range(6)], measures=measures)


def test_the_page_has_every_measure(several: CKAResult) -> None:
    data = data_of(several.to_html())
    assert len(data["measures"]) == len(several.measures) == 4
    many = len(several.layers("many"))
    for name, written in zip(several.measures, data["measures"], strict=True):
        facts = several.of(name).measure
        assert written["title"] == facts.title
        assert written["chance"] == (facts.chance or 0)
        for kind, frame in (
            ("mean", several.matrix),
            ("stderr", several.stderr),
            ("spread", several.spread),
            *([("null", several.null)] if name == "cka" else []),
        ):
            found = full(written["matrices"][kind])[:many, many:]
            expected = frame("many", "one", measure=name).to_numpy(float)
            np.testing.assert_allclose(found, expected, atol=1e-6)
        assert ("null" in written["matrices"]) == (name == "cka")
        found = full(written["particles"]["scores"])[1 : many * 3 : many, -1]
        layers = {"row": several.layers("many")[1], "col": several.layers("one")[-1]}
        expected = several.particles("many", "one", **layers, measure=name).to_numpy()
        np.testing.assert_allclose(found, expected[:, 0], atol=1e-6)
    assert data["measures"][0]["chance"] == pytest.approx(3 / 19)


def test_settings_are_those_of_each_measure(several: CKAResult) -> None:
    settings = [one["setting"] for one in data_of(several.to_html())["measures"]]
    for setting, end in zip(
        settings,
        ("k 3, cosine", "unbiased, rbf, bandwidth 0.4", "euclidean, pearson", "biased, linear"),
        strict=True,
    ):
        assert setting.startswith("cpu · ")
        assert f" · {end}" in setting


def test_another_measure_is_shown_first(several: CKAResult) -> None:
    assert data_of(several.to_html())["start"]["measure"] == 0
    page = several.to_html(measure="rsa")
    assert shown(data_of(page))["title"] == several.of("rsa").measure.title
    assert [one["title"] for one in data_of(page)["measures"]] == [
        several.of(name).measure.title for name in several.measures
    ]
    with pytest.raises(KeyError, match='no measure "procrustes"'):
        several.to_html(measure="procrustes")


def test_there_is_room_for_the_particles_of_the_first_measures(several: CKAResult) -> None:
    size = len(data_of(several.to_html())["measures"][0]["particles"]["scores"]) * 2
    page = several.to_html(measure="rsa", max_particle_bytes=int(2.5 * size))
    data = data_of(page)
    there = [one["particles"] is not None for one in data["measures"]]
    assert there == [True, False, True, False], "the one that is shown, then in their order"
    assert "of particles under CKA, RBF kernel; CKA (" in data["particles_note"]
    assert not data_of(several.to_html(max_particle_bytes=5 * size))["particles_note"]


def test_the_heading_names_the_measure_where_there_is_one(several: CKAResult) -> None:
    assert data_of(several.to_html())["title"] == "Similarity"
    one = replace(several.of("rsa"), others=())
    assert data_of(one.to_html())["title"] == several.of("rsa").measure.title


def test_titles_of_measures_cannot_leave_their_place(several: CKAResult) -> None:
    plain = several.to_html()
    page = replace(several, measure=replace(several.measure, title=HOSTILE)).to_html()
    for sign in ("<img", "<script", "</script", "<!--"):
        assert page.count(sign) == plain.count(sign)
    assert data_of(page)["measures"][0]["title"] == HOSTILE


def test_names_cannot_leave_their_place(result: CKAResult) -> None:
    first = replace(result.rows[0], name=HOSTILE, layers=(HOSTILE, *result.rows[0].layers[1:]))
    hostile = replace(result, rows=(first, result.rows[1]), warnings=(HOSTILE,))
    plain, page = result.to_html(), hostile.to_html(info={HOSTILE: {HOSTILE: HOSTILE}})
    for sign in ("<img", "<script", "</script", "<!--"):
        assert page.count(sign) == plain.count(sign)
    data = data_of(page)
    assert data["models"][0]["name"] == data["models"][0]["info"][0] == HOSTILE
    assert data["warnings"] == [HOSTILE]


def test_the_scripts_are_those_of_the_policy_and_nothing_else_may_load(result: CKAResult) -> None:
    page = result.to_html()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'"
    scripts = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    assert len(scripts) == 2
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert rules["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    assert not re.findall(r"""(?:src|href)\s*=\s*["'][^"']+""", page.split("<main")[0])
    assert "@import" not in page
    assert "url(" not in page


def test_the_page_is_small_beside_its_data(result: CKAResult) -> None:
    page = result.to_html()
    assert len(page.encode()) < 100_000
    assert len(page.encode()) - len(json.dumps(data_of(page))) < 80_000


def test_it_is_written_and_titled(result: CKAResult, tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    page = result.to_html(path, title="Seeds & <widths>")
    assert path.read_text(encoding="utf-8") == page
    assert "<title>Seeds &amp; &lt;widths&gt;</title>" in page
    assert data_of(page)["title"] == "Seeds & <widths>"
    assert "<title>CKA: wide net against narrow net</title>" in result.to_html()


def test_some_layers_alone_stand_in_the_page(result: CKAResult) -> None:
    kept = {"wide net": ["2", "0"], "narrow net": result.layers("narrow net")}
    data = data_of(result.to_html(layers={"wide net": kept["wide net"]}))
    assert [model["layers"] for model in data["models"]] == [["0", "2"], kept["narrow net"]]
    mean = full(shown(data)["matrices"]["mean"])
    expected = result.matrix("wide net", "narrow net").loc[["0", "2"]]
    np.testing.assert_allclose(mean[:2, 2:], expected, atol=1e-6)
    found = full(shown(data)["particles"]["scores"])[1:6:2, 6 :: len(kept["narrow net"])]
    layers = {"row": "2", "col": kept["narrow net"][0]}
    expected = result.particles("wide net", "narrow net", **layers)
    np.testing.assert_allclose(found[:, :2], expected, atol=1e-6)
    alone = data_of(result.to_html(layers={"wide net": []}))
    assert [model["name"] for model in alone["models"]] == ["narrow net"]
    with pytest.raises(ValueError, match="no layer is left"):
        result.to_html(layers={"wide net": [], "narrow net": ["no such"]})


def test_the_page_knows_what_to_show_first(result: CKAResult) -> None:
    assert data_of(result.to_html())["start"] == {
        "row": 0, "col": 1, "metric": "mean", "selected": [], "measure": 0,
    }  # fmt: skip
    cell = Cell(LayerKey("narrow net", "2"), LayerKey("wide net", "0"))
    view = View(("narrow net", "wide net"), "stderr", cell)
    start = {"row": 1, "col": 0, "metric": "stderr", "selected": [2, 0], "measure": 0}
    assert data_of(result.to_html(view=view))["start"] == start
    fewer = {"narrow net": ["2"]}
    assert data_of(result.to_html(view=view, layers=fewer))["start"]["selected"] == [0, 0]
    gone = data_of(result.to_html(view=view, layers={"narrow net": ["0"]}))["start"]
    assert gone == {**start, "selected": []}
    assert data_of(result.to_html(view=view, layers={"narrow net": []}))["start"]["row"] == 0


def test_layers_carry_what_is_said_of_them(result: CKAResult) -> None:
    layer = result.layers("wide net")[1]
    data = data_of(result.to_html(info={"wide net": {layer: "ReLU 16"}}))
    assert data["models"][0]["info"][1] == "ReLU 16"
    assert not any(data["models"][1]["info"])


def test_one_line_when_the_scripts_are_not_built(
    result: CKAResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "STATIC", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"heatmap\.js was not built"):
        result.to_html()
    (tmp_path / "heatmap.js").write_text("var a = 1;")
    with pytest.raises(ValueError, match="does not end with its exports"):
        result.to_html()


def test_the_page_and_the_notebook_say_the_same_of_particles() -> None:
    """The page's own statistics are held to the same table, in js/test/page.test.ts."""
    cases = json.loads((Path(__file__).parents[2] / "particle_cases.json").read_text())
    for case in cases:
        table, same = np.array(case["scores"], float), case["same"]
        stderr = None if case["stderr"] is None else np.array(case["stderr"], float)
        within = [np.array(own, float) for own in case["within"] or ()] or (None, None)
        verdict = judge(table, same=same, stderr=stderr, within=within)
        for found, expected in zip(verdict, (case["odd"], case["unsure"]), strict=True):
            assert [[one.axis, one.particle] for one in found] == [e[:2] for e in expected], case
            np.testing.assert_allclose(
                [one[2:] for one in found], [e[2:] for e in expected], atol=1e-5
            )
        if case["order"]:
            judged = (table + table.T) / 2 if same else table
            assert list(similarity_order(judged, same=same)) == case["order"]
        if case["map"]:
            coords, _ = classical_mds(angular_distance(table))
            np.testing.assert_allclose(coords, np.array(case["map"], float), atol=1e-5)
