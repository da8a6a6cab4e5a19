"""The explorer in a kernel as old as Colab's, without a page: its messages are all that is seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

SETUP = """
import threading
import ipykernel, ipywidgets
import torch
from torch import nn
import cka_widget as cw

torch.set_num_threads(1)

def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))

batches = [torch.randn(32, 6, generator=torch.Generator().manual_seed(i)) for i in range(20)]
explorer = cw.CKAExplorer({"A": [net(0), net(1)], "B": [net(2), net(3)]}, batches)
log, send = [], ipywidgets.Widget._send

def logged(self, message, buffers=None):
    log.append((type(self).__name__, sorted(message.get("state", {})), len(buffers or ())))
    send(self, message, buffers)

ipywidgets.Widget._send = logged
explorer
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookClient]:
    """A kernel in which `SETUP` ran; the first cell's outputs are the explorer's."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SETUP)])
    folder: Path = tmp_path_factory.mktemp("kernel")
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel():
        client.execute_cell(notebook.cells[0], 0)
        yield client


def say(client: NotebookClient, code: str) -> str:
    """Run a cell; what it printed."""
    client.nb.cells.append(nbformat.v4.new_code_cell(code))
    cell = client.execute_cell(client.nb.cells[-1], len(client.nb.cells) - 1)
    return "".join(output.get("text", "") for output in cell.outputs).strip()


def test_it_is_the_old_stack(kernel: NotebookClient) -> None:
    assert say(kernel, "print(ipykernel.__version__, ipywidgets.__version__)") == "6.17.1 7.7.1"
    views = [o["data"].get("application/vnd.jupyter.widget-view+json") for o in outputs(kernel)]
    assert views[0]
    assert views[0]["model_id"] == say(kernel, "print(explorer.model_id)")


def outputs(kernel: NotebookClient) -> list[nbformat.NotebookNode]:
    return list(kernel.nb.cells[0].outputs)


def test_a_blocking_run_ends_done_and_leaves_its_picture(kernel: NotebookClient) -> None:
    assert say(kernel, "explorer.run(block=True); print(explorer.state)") == "done"
    assert say(kernel, "print(explorer.result.samples, explorer.heatmap.shape)") == "640 [3, 3]"
    assert outputs(kernel)[1]["data"]["image/png"]


def test_an_update_of_the_heatmap_is_one_message(kernel: NotebookClient) -> None:
    code = """
        log.clear()
        explorer.heatmap.set_data([[0.5, 0.25]], [[0.1, 0.1]])
        print(log)
    """
    assert say(kernel, code) == "[('Heatmap', ['shape', 'version'], 2)]"


def test_a_run_in_a_thread_is_told_again_to_a_page_that_asks(kernel: NotebookClient) -> None:
    code = """
        explorer.run(block=False)
        explorer.wait(60)
        log.clear()
        pulse = explorer._views.pulse
        pulse._handle_custom_msg({"beat": pulse.beat - 1}, [])
        whole = {kind for kind, names, _ in log if "_model_name" in names}
        answered = log[-1] == ("Pulse", [], 0)
        log.clear()
        pulse._handle_custom_msg({"beat": pulse.beat}, [])
        print(explorer.state, {"Heatmap", "LayerPicker", "HTML", "Button"} <= whole, answered, log)
    """
    assert say(kernel, code) == "done True True [('Pulse', [], 0)]"


def test_on_colab_the_run_button_stays_until_the_end(kernel: NotebookClient) -> None:
    code = """
        import sys, types
        sys.modules["google.colab"] = types.ModuleType("google.colab")
        explorer._views.header.run.click()
        del sys.modules["google.colab"]
        print(explorer.state)
    """
    assert say(kernel, code) == "done"


def test_a_cell_is_selected_and_everything_is_saved(kernel: NotebookClient) -> None:
    code = """
        from pathlib import Path
        explorer.heatmap.set_state({"selected": [0, 2]})
        print(explorer.selection.row.layer, explorer.selection.col.layer)
        print("4 particle pairs" in explorer._views.drill.header.value)
        for button in explorer._views.menu._buttons:
            button.click()
            explorer._views.menu.wait()
        explorer.result.to_html("run.html")
        print(*sorted(path.name for path in Path().iterdir() if path.stat().st_size > 1000))
        print(cw.load("cka.safetensors").samples)
    """
    layers, pairs, files, samples = say(kernel, code).splitlines()
    assert (layers, pairs, samples) == ("0 2", "True", "640")
    assert files == "cka.csv cka.html cka.png cka.safetensors cka.svg run.html"
