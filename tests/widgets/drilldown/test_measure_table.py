"""The table of measures; what it says is held to the page by tests/measure_cases.json."""

import json
import math
from pathlib import Path

import pytest
from fake_result import FakeResult, cell

from cka_widget.result.cell.cell_measures import CellMeasure
from cka_widget.result.measure_facts import MeasureFacts
from cka_widget.widgets.drilldown.drilldown import DrillDown
from cka_widget.widgets.drilldown.measure_table import Row, measure_table, row

CASES = json.loads((Path(__file__).parents[2] / "measure_cases.json").read_text(encoding="utf-8"))


def given(case):
    value, error = (math.nan if case[key] is None else case[key] for key in ("value", "error"))
    return CellMeasure(case["title"], value, error, case["chance"] or 0.0)


@pytest.mark.parametrize("case", CASES, ids=[case["title"] for case in CASES])
def test_the_notebook_and_the_page_say_the_same_of_a_measure(case):
    """The page's own rows are held to the same table, in js/test/page.test.ts."""
    assert row(given(case)) == Row(case["title"], **case["row"])


def test_titles_are_text_and_the_first_stands_out():
    html = measure_table([given(case) for case in reversed(CASES)])
    assert "&lt;b&gt;a name &amp; &quot;more&quot;&lt;/b&gt;</th>" in html
    assert "<b>" not in html
    assert html.index("cka-shown") < html.index("</tr>")
    assert html.count("cka-shown") == 1
    assert html.count("cka-at") == sum(case["value"] is not None for case in CASES)
    assert html.count("cka-tick") == sum((case["chance"] or 0) > 0 for case in CASES)


@pytest.fixture
def results():
    """CKA, and neighbours, of which chance is not 0 and the spread by chance is not known."""
    cka, knn = FakeResult({"a": 2, "b": 2}), FakeResult({"a": 2, "b": 2}, seed=1)
    knn.measure = MeasureFacts("knn", "mutual 5-NN", chance=0.16, permuted=False)

    def null(*names):
        raise ValueError("not known")

    knn.null = null
    return cka, knn


def test_the_drill_down_lists_the_measures_where_there_are_several(results):
    cka, knn = results
    drill = DrillDown()
    where = cell("a", "fc", "b", "conv")
    drill.show(cka, where)
    assert "cka-measures" not in drill.header.value
    assert drill.matrix.value_name == "CKA"
    cka.others, knn.others = (knn,), (cka,)
    drill = DrillDown()
    drill.show(cka, where)
    for one in results:
        value = one.matrix("a", "b").at["fc", "conv"]
        assert f"<span>{value:.3f} ± 0.021</span>" in drill.header.value
    assert drill.header.value.count("by chance .16") == 1
    assert "(null 0.000 ± 0.012)" in drill.header.value
    drill.folded.selected_index = 0
    drill.show(knn, where)
    assert drill.header.value.index("mutual 5-NN</th>") < drill.header.value.index("CKA</th>")
    assert "(null" not in drill.header.value
    assert drill.matrix.value_name == "mutual 5-NN"
    assert "<th>mutual 5-NN</th>" in drill.table.value
    assert "measure=&#x27;knn&#x27;)" in drill.table.value


def test_one_measure_alone_tells_its_chance_beside_the_score(results):
    _, knn = results
    drill = DrillDown()
    drill.show(knn, cell("a", "fc", "b", "conv"))
    assert ">by chance .16</div>" in drill.header.value
    assert "cka-measures" not in drill.header.value
