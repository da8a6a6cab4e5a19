"""What a run is said to cost, before it and beside the Run button."""

import re
from dataclasses import replace

import pytest
import torch
from explorers import Slow, explore, until
from torch import nn

from cka_widget.widgets.comparison.cost import Costs, Plan, cost_html, plan_html

COSTS = Costs(samples=1000, batch=100, block=None, forward=1e-3, speed=1e9)
PLAN = Plan({"A": 1, "<b>": 2}, {"A": 1, "<b>": 3}, features=500, costs=COSTS)


class Loops(nn.Module):
    """Modules that run three times, return what they got, or never run; an output of its own."""

    def __init__(self):
        super().__init__()
        self.a, self.relu, self.b = nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)
        self.drop, self.spare = nn.Dropout(), nn.Linear(2, 2)

    def forward(self, x):
        for _ in range(3):
            x = self.relu(self.a(x))
        return torch.log_softmax(self.drop(self.b(x)), 1)


def rows_said(text):
    return int(re.search(r"(\d+) rows? ×", text)[1])


@pytest.mark.parametrize("layers", [None, ["a", "drop", "spare"], ["b"]])
def test_the_plan_counts_what_the_heatmap_will_show(layers):
    explorer = explore({"A": Loops()}, layers=layers)
    said = rows_said(explorer._views.plan.value)
    explorer.run(block=True)
    assert [said] * 2 == explorer.heatmap.shape
    assert rows_said(explorer._views.header.cost.value) == said


def test_one_row_is_a_row():
    assert "1 row × 2 columns" in plan_html(PLAN, "A", "<b>")
    assert "2 rows × 1 column ·" in cost_html(PLAN, "<b>", "A")
    assert cost_html(replace(PLAN, layers={"A": 0, "<b>": 2}), "A", "<b>") == ""


def test_the_time_grows_with_features_rows_and_block_and_shrinks_with_speed():
    first = PLAN.seconds
    assert first > COSTS.samples * COSTS.forward
    assert replace(PLAN, features=50_000).seconds > first
    assert replace(PLAN, layers={"A": 90, "<b>": 2}).seconds > first
    assert replace(PLAN, costs=replace(COSTS, block=10)).seconds < first
    assert replace(PLAN, costs=replace(COSTS, speed=1e11)).seconds < first


def test_a_run_of_the_same_layers_tells_the_time_best():
    assert replace(PLAN, rate=50.0).seconds == 1000 / 50
    assert "about 20 s" in cost_html(replace(PLAN, rate=50.0), "A", "<b>")


@pytest.mark.parametrize("unknown", ["samples", "batch", "forward"])
def test_no_time_is_made_up(unknown):
    plan = replace(PLAN, costs=replace(COSTS, **{unknown: None}))
    assert plan.seconds is None
    assert "time" not in plan_html(plan, "A", "<b>")


def test_on_another_device_the_time_is_a_bound_until_it_was_measured_there():
    plan = replace(PLAN, costs=replace(COSTS, elsewhere=True))
    assert "at most 1." in plan_html(plan, "A", "<b>")
    assert "at most" not in plan_html(replace(plan, rate=50.0), "A", "<b>")


def test_the_cost_stands_beside_run_whenever_the_explorer_rests():
    explorer = explore(loader=Slow(300, 0.005))
    cost = explorer._views.header.cost
    assert cost.value == "", "the plan has it"
    explorer.run()
    until(lambda: explorer.result is not None)
    assert cost.value == ""
    explorer.cancel()
    explorer.wait(10)
    assert "3 rows × 4 columns · about" in cost.value
    explorer.layers = {"A": ["head"]}
    assert "1 row × 4 columns · about" in cost.value
    explorer.layers = {"A": []}
    assert cost.value == ""


def test_the_time_beside_run_is_that_of_the_run_before():
    explorer = explore(loader=Slow(20, 0.05))
    explorer.run(block=True)
    seconds = explorer._study.plan(explorer.layers, explorer._known).seconds
    assert seconds == pytest.approx(explorer._status.seconds)
    assert seconds > 1
    explorer.layers = {"A": ["head"]}
    assert explorer._study.plan(explorer.layers, explorer._known).seconds < 1
