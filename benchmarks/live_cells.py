"""The notebook cells that `live.py` runs."""

ENSEMBLES = """
import time
import torch
import cka_widget as cw
from models import DigitsCNN, warmed

torch.set_num_threads(1)
torch.manual_seed(0)
loader = [torch.randn(64, 1, 8, 8) for _ in range(8)]

def ensemble(size):
    return [warmed(DigitsCNN(), loader[0]) for _ in range(size)]

explorer = cw.CKAExplorer({"first": ensemble(8), "second": ensemble(8)}, loader)
explorer.run(block=True)
explorer
"""
FIRST = """
import time, torch
from models import resnet50
models, loader = {"A": resnet50(), "B": resnet50()}, [torch.randn(8, 3, 64, 64)]
began = time.time()
import cka_widget as cw
explorer = cw.CKAExplorer(models, loader)
built = time.time()
explorer
"""
STREAM = """
import threading, time
import numpy as np
from cka_widget.engine.compare import Snapshot
from cka_widget.widgets.elements.heatmap import Heatmap
from cka_widget.widgets.run.runner import Runner

rng = np.random.default_rng(0)
scores, errors = rng.random((160, 160)), np.full((160, 160), 0.01)
heatmap = Heatmap(scores, errors)
sent = []

class Frame:
    device, samples, total_samples, batches, total_batches, done = "cpu", 1, None, 1, None, False

    def __init__(self, number):
        self.result = np.roll(scores, number, 1)

def frames():
    begin = time.monotonic()
    for number in range(200):
        time.sleep(max(0, begin + number / 20 - time.monotonic()))
        yield Frame(number)

def publish(progress, matrix):
    heatmap.set_data(matrix, errors)
    sent.append((1000 * time.time(), heatmap.version))

runner = Runner(publish, lambda: None)
heatmap
"""
RUN = """
import time
import torch
import cka_widget as cw
from models import chain

torch.set_num_threads(1)

class Paced:
    batch_size = 32

    def __len__(self):
        return 200

    def __iter__(self):
        begin = time.monotonic()
        for number in range(200):
            time.sleep(max(0, begin + number / 20 - time.monotonic()))
            yield torch.randn(32, 8)

explorer = cw.CKAExplorer({"A": chain(160, 8), "B": chain(160, 8)}, Paced())
sent = []
explorer.heatmap.observe(lambda change: sent.append((1000 * time.time(), change["new"])), "version")
explorer
"""
LARGE = """
import time
import ipywidgets as widgets
import numpy as np
from cka_widget.widgets.elements.heatmap import Heatmap

rng = np.random.default_rng(0)
scores, errors = rng.random((500, 500)), np.full((500, 500), 0.01)
box = widgets.VBox([Heatmap(scores[:10, :10])])
box
"""
LARGE_SHOWN = """
began = 1000 * time.time()
heatmap = Heatmap(scores, errors)
box.children = [heatmap]
"""
