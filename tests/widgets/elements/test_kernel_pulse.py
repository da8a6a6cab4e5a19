"""What the page hears of the run, and how it asks."""

import threading

import ipywidgets as widgets
import pytest

from cka_widget.widgets.elements.kernel_pulse import Pulse
from cka_widget.widgets.notebook.widget_lock import family


@pytest.fixture
def sent(monkeypatch):
    """Names of the widgets that were sent whole, and the messages."""
    record = {"states": [], "messages": []}
    monkeypatch.setattr(
        widgets.Widget, "send_state", lambda self, key=None: record["states"].append(self)
    )
    monkeypatch.setattr(Pulse, "send", lambda self, content: record["messages"].append(content))
    return record


def test_only_an_old_beat_brings_all_views_again(sent):
    label = widgets.Label("scores")
    pulse = Pulse(threading.RLock(), lambda: [label])
    pulse.tick("running")
    sent["states"].clear()

    pulse._handle_custom_msg({"beat": 1}, [])
    assert sent == {"states": [], "messages": [{"beat": 1}]}
    pulse._handle_custom_msg({"beat": 0}, [])
    assert sent == {"states": [label], "messages": [{"beat": 1}, {"beat": 1}]}


def test_a_click_is_heard_and_a_state_told():
    pulse = Pulse(threading.RLock(), list)
    pulse.hear()
    pulse.tick("paused")
    assert (pulse.heard, pulse.beat, pulse.state) == (1, 1, "paused")


def test_family_finds_each_widget_once_by_the_named_ways():
    leaf = widgets.Label()
    box = widgets.HBox([leaf, widgets.VBox([leaf])])
    assert len(list(family([box, leaf]))) == 3
    assert list(family([box], ways=())) == [box]
