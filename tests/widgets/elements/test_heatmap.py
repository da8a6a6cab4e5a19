"""The heatmap's traits: what goes over the wire, and that it comes back as it was."""

import threading

import numpy as np
import pytest
import traitlets
from explorers import sends_without_kernel

from cka_widget.widgets.elements.heatmap import Heatmap

SCORES = np.array([[0.1, 0.2, np.nan], [-0.05, 1.0, 0.6]])


def sent(widget, monkeypatch):
    messages = []
    monkeypatch.setattr(widget, "send_state", lambda key=None: messages.append(set(key or ())))
    return messages


def test_values_are_little_endian_float32_row_major():
    heatmap = Heatmap(SCORES)
    assert heatmap.shape == [2, 3]
    assert heatmap.values == SCORES.astype("<f4").tobytes()
    assert heatmap.stderr == b""
    np.testing.assert_array_equal(heatmap.array(), SCORES.astype(np.float32))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", ">f8"])
def test_any_layout_and_type_gives_the_same_bytes(order, dtype):
    scores = np.arange(6, dtype=dtype).reshape(2, 3).astype(dtype, order=order)
    assert Heatmap(scores).values == np.arange(6, dtype="<f4").tobytes()


def test_a_row_is_a_row():
    heatmap = Heatmap(SCORES)
    assert heatmap.value_at(1, 2) == pytest.approx(0.6)
    assert np.isnan(heatmap.value_at(0, 2))
    with pytest.raises(IndexError, match=r"\(2, 0\) lies outside a 2 x 3 matrix"):
        heatmap.value_at(2, 0)


def test_state_round_trip():
    first = Heatmap(
        SCORES,
        SCORES * 0.1,
        row_labels=["a", "b"],
        col_labels=["c", "d", "e"],
        origin="bottom",
        selected=[1, 2],
    )
    second = Heatmap()
    state = {k: v for k, v in first.get_state().items() if not k.startswith("_") and k != "layout"}
    second.set_state(state)
    for name in state:
        mine, theirs = getattr(first, name), getattr(second, name)
        assert mine == theirs or name == "tabbable" or name == "tooltip", name
    np.testing.assert_array_equal(second.stderr_array(), (SCORES * 0.1).astype(np.float32))


@sends_without_kernel
def test_an_update_is_one_message(monkeypatch):
    heatmap = Heatmap()
    messages = sent(heatmap, monkeypatch)
    heatmap.set_data(SCORES, SCORES)
    assert messages == [{"shape", "values", "stderr", "version"}]


def test_every_update_raises_the_version():
    heatmap = Heatmap(SCORES)
    before = heatmap.version
    heatmap.set_data(SCORES)
    assert heatmap.version == before + 1


def test_threads_may_write_at_once(monkeypatch):
    heatmap = Heatmap()
    messages = sent(heatmap, monkeypatch)

    def write(value):
        for _ in range(50):
            heatmap.set_data(np.full((3, 4), value))

    threads = [threading.Thread(target=write, args=(v,)) for v in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heatmap.version == 200
    assert len(messages) == 200
    assert len(set(heatmap.array().ravel())) == 1


def test_the_page_selects(monkeypatch):
    heatmap = Heatmap(SCORES)
    seen = []
    heatmap.observe(lambda change: seen.append(change.new), "selected")
    heatmap.set_state({"selected": [1, 0]})
    heatmap.set_state({"selected": []})
    assert seen == [[1, 0], []]


@pytest.mark.parametrize("pair", [[1], [1, 2, 3]])
def test_a_cell_is_a_pair(pair):
    with pytest.raises(traitlets.TraitError, match=r"selected is \[\] or \[row, column\]"):
        Heatmap(SCORES, selected=pair)


def test_what_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match="two dimensions"):
        Heatmap(np.zeros(3))
    with pytest.raises(ValueError, match=r"stderr has shape \(3, 2\), values have \(2, 3\)"):
        Heatmap(SCORES, SCORES.T)


def test_a_misspelt_option_is_refused_with_the_right_one():
    with pytest.raises(TypeError, match="no option 'colourmap'; did you mean 'colormap'"):
        Heatmap(colourmap="magma")


def test_labels_with_reasons():
    heatmap = Heatmap(SCORES)
    heatmap.set_labels(["a", "b"], ["c", "d", "e"], row_reasons=[None, "never ran"])
    assert heatmap.row_reasons == ["", "never ran"]
    assert heatmap.col_info == []
