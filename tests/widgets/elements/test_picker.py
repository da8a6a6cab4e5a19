"""The picker's traits: what a node needs, and that a choice comes back as it was."""

import pytest
import traitlets

from cka_widget.widgets.elements.picker import LayerPicker

NODES = [
    {"name": "conv1", "cls": "Conv2d", "shape": "16×8×8", "params": 160},
    {"name": "layer1", "cls": "Sequential", "depth": 0},
    {"name": "layer1.relu", "cls": "ReLU", "depth": 1, "parent": 1, "calls": 2},
    {"name": "aux", "cls": "Linear", "status": "never ran", "calls": 0},
]


def test_a_label_is_the_last_part_of_the_name():
    picker = LayerPicker(NODES)
    assert [n["label"] for n in picker.nodes] == ["conv1", "layer1", "relu", "aux"]
    assert picker.nodes[0]["parent"] == -1


def test_rows_count_calls_and_leave_out_what_never_ran():
    picker = LayerPicker(NODES, checked=["conv1", "layer1.relu", "aux"])
    assert picker.rows == 3


def test_state_round_trip():
    first = LayerPicker(NODES, checked=["conv1"], title="wide CNN", color="b", particles=4)
    second = LayerPicker()
    names = ("nodes", "checked", "title", "color", "particles", "disabled", "note", "theme")
    second.set_state({k: v for k, v in first.get_state().items() if k in names})
    assert [getattr(second, k) for k in names] == [getattr(first, k) for k in names]


def test_the_page_chooses():
    picker = LayerPicker(NODES)
    seen = []
    picker.observe(lambda change: seen.append(change.new), "checked")
    picker.set_state({"checked": ["conv1", "layer1"]})
    assert seen == [["conv1", "layer1"]]


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"cls": "Linear"}, "node 0 has no name"),
        ({"name": "a", "status": "maybe"}, "a: status 'maybe'"),
        ({"name": "a", "parent": 0}, "a: its parent must come before it"),
    ],
)
def test_a_broken_node_is_refused(node, said):
    with pytest.raises(traitlets.TraitError, match=said):
        LayerPicker([node])


def test_a_misspelt_option_is_refused_with_the_right_one():
    with pytest.raises(TypeError, match="no option 'colour'; did you mean 'color'"):
        LayerPicker(NODES, colour="b")


def test_a_name_is_text():
    picker = LayerPicker([{"name": "<img src=x onerror=alert(1)>"}])
    assert picker.nodes[0]["name"] == "<img src=x onerror=alert(1)>"
