"""Small models, loaders and explorers for the tests of the explorer."""

import time
from itertools import pairwise

import ipywidgets
import pytest
import torch
from torch import nn

import cka_widget as cw

sends_without_kernel = pytest.mark.skipif(
    ipywidgets.__version__.startswith("7."), reason="ipywidgets 7 sends to a kernel alone"
)


class Net(nn.Module):
    def __init__(self, widths=(6, 8, 4), seed=0, broken_after=None):
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))
        self.head = nn.Linear(widths[-1], 3)
        self.spare = nn.Linear(2, 2)
        self.calls, self.broken_after = 0, broken_after

    def forward(self, x):
        self.calls += len(x) > 16  # looks take fewer samples
        if self.broken_after is not None and self.calls > self.broken_after:
            raise ValueError("the sensor <unplugged>")
        return self.head(torch.tanh(self.body(x)))


class Slow:
    """A list of batches that takes its time, and counts what it gave out."""

    batch_size = 32

    def __init__(self, batches=8, step=0.0):
        torch.manual_seed(1)
        self.batches = [torch.randn(32, 6) for _ in range(batches)]
        self.step, self.given = step, 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for batch in self.batches:
            time.sleep(self.step)
            self.given += 1
            yield batch


def explore(models=None, loader=None, **options):
    models = models or {"A": Net(seed=0), "B": Net((6, 5, 5, 4), seed=1)}
    return cw.CKAExplorer(models, Slow() if loader is None else loader, device="cpu", **options)


def ensembles():
    return {"A": [Net(seed=i) for i in range(3)], "B": [Net(seed=10 + i) for i in range(4)]}


def until(condition, timeout=10.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def hidden(widget):
    return "cka-hidden" in widget._dom_classes


CELL = cw.Cell(cw.LayerKey("A", "head"), cw.LayerKey("B", "body.0"))
