"""A JupyterLab server and a notebook in it, driven through a Chromium page.

`Server` is the process; `Notebook` wraps a Playwright page that shows one notebook: cells are run
the way a person runs them, the kernel is asked beside them.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from browser.serving import SECOND, UP, end, free_port, start, visit, wait_until_up
from playwright.sync_api import Locator, Page

QUIET = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    "@jupyterlab/docmanager-extension/plugin.jupyterlab-settings": {"autosave": False},
    "@jupyterlab/application-extension/sidebar.jupyterlab-settings": {"overrides": {}},
}


class Server:
    """JupyterLab on a random port of the loopback interface, with no configuration but its own."""

    def __init__(self, home: Path) -> None:
        """Start it; `home` gets the served folder `root` and everything Jupyter would write."""
        self.root = home / "root"
        self.root.mkdir(parents=True)
        self.token = secrets.token_hex(16)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home / "jupyterlab.log"
        settings = home / "settings"
        for name, content in QUIET.items():
            path = settings / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        env = dict(os.environ, JUPYTER_NO_CONFIG="1", OMP_NUM_THREADS="1", HOME=str(home))
        env["JUPYTERLAB_SETTINGS_DIR"] = str(settings)
        for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
            env[f"JUPYTER_{name}"] = str(home / name.lower())
        env["JUPYTERLAB_WORKSPACES_DIR"] = str(home / "workspaces")
        env["IPYTHONDIR"] = str(home / "ipython")
        command = [
            *("jupyterlab", "--no-browser", "--allow-root"),
            "--LabApp.expose_app_in_browser=True",
            "--LabApp.extension_manager=readonly",
            f"--ServerApp.port={self.port}",
            "--ServerApp.ip=127.0.0.1",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={self.root}",
            f"--IdentityProvider.token={self.token}",
        ]
        self.process = start(command, home, env, self.log, sys.executable)
        wait_until_up(self.process, f"{self.url}/api/status?token={self.token}", self.log)

    def stop(self) -> None:
        """End the server and, with it, its kernels."""
        end(self.process)

    def add(self, name: str, cells: list[str]) -> str:
        """Write a notebook of code cells into the served folder; returns its path there."""
        code = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
        notebook = {
            "cells": [
                {**code, "id": f"cell-{number}", "source": source}
                for number, source in enumerate(cells)
            ],
            "metadata": {
                "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (self.root / name).write_text(json.dumps(notebook))
        return name


class Notebook:
    """One notebook on a page."""

    def __init__(self, server: Server, page: Page) -> None:
        """Wrap a page of a browser."""
        self.server, self.page = server, page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    # the page ------------------------------------------------------------------------------------
    def open(self, path: str) -> None:
        """Load the notebook alone on the page and wait for its kernel."""
        visit(self.page, f"{self.server.url}/doc/tree/{path}?token={self.server.token}&reset")
        self.wait_until_ready()
        if self.page.evaluate("() => !window.jupyterapp.shell.leftCollapsed"):
            self.command("application:toggle-left-area")

    def wait_until_ready(self) -> None:
        """Wait until the notebook is there and its kernel idle."""
        self.page.wait_for_function(
            """() => {
                const panel = window.jupyterapp?.shell?.currentWidget;
                const kernel = panel?.sessionContext?.session?.kernel;
                return panel?.content?.widgets?.length && kernel?.status === "idle";
            }""",
            timeout=UP * SECOND,
        )

    def close(self) -> None:
        """Shut the kernel down, so that the next notebook has the machine for itself."""
        self.page.evaluate(
            """async () => {
                const panel = window.jupyterapp?.shell?.currentWidget;
                await panel?.sessionContext?.shutdown();
            }"""
        )

    def command(self, name: str, **args: Any) -> None:
        """Execute a command of JupyterLab and wait until it is done."""
        self.page.evaluate(
            "async ([name, args]) => { await window.jupyterapp.commands.execute(name, args); }",
            [name, args],
        )

    def theme(self, which: str) -> None:
        """Switch to "light" or "dark"."""
        self.command("apputils:change-theme", theme=f"JupyterLab {which.title()}")
        self.page.wait_for_function(
            "light => document.body.dataset.jpThemeLight === String(light)",
            arg=which == "light",
        )

    # cells ---------------------------------------------------------------------------------------
    def start_all(self) -> None:
        """Run All Cells, without waiting."""
        self.page.evaluate(
            "() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }"
        )

    def run_all(self, timeout: float = 180) -> None:
        """Run All Cells and wait for the last; an error in one raises."""
        self.start_all()
        self.wait_for_cells(timeout)

    def wait_for_cells(self, timeout: float = 180) -> None:
        """Wait until every code cell was executed, or one failed."""
        self.page.wait_for_function(
            """() => {
                const cells = window.jupyterapp.shell.currentWidget.content.widgets
                    .map(cell => cell.model).filter(model => model.type === "code");
                const failed = cells.some(cell => cell.outputs.toJSON()
                    .some(output => output.output_type === "error"));
                return failed || cells.every(cell => cell.executionCount !== null);
            }""",
            timeout=timeout * SECOND,
        )
        failures = [
            output
            for outputs in self.outputs()
            for output in outputs
            if output["output_type"] == "error"
        ]
        if failures:
            raise AssertionError("\n".join(failures[0]["traceback"]))

    def outputs(self) -> list[list[dict[str, Any]]]:
        """Outputs of the code cells, as the notebook file would hold them."""
        result: list[list[dict[str, Any]]] = self.page.evaluate(
            """() => window.jupyterapp.shell.currentWidget.content.widgets
                .filter(cell => cell.model.type === "code")
                .map(cell => cell.model.outputs.toJSON())"""
        )
        return result

    def run_new_cell(self, source: str, timeout: float = 60) -> float:
        """Append a cell, run it; returns the seconds from the run to its execution number."""
        return float(
            self.page.evaluate(
                """async ([source, limit]) => {
                    const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
                    notebook.activeCellIndex = notebook.widgets.length - 1;
                    await app.commands.execute("notebook:insert-cell-below");
                    notebook.activeCell.model.sharedModel.setSource(source);
                    const model = notebook.activeCell.model, start = performance.now();
                    const done = app.commands.execute("notebook:run-cell");
                    const late = new Promise((_, no) => setTimeout(
                        () => no(new Error("the cell was not executed in time")), limit));
                    await Promise.race([done, late]);
                    if (model.executionCount === null) throw new Error("the cell did not run");
                    return (performance.now() - start) / 1000;
                }""",
                [source, timeout * SECOND],
            )
        )

    def show(self, locator: Locator) -> None:
        """Scroll until the element is in view."""
        locator.first.scroll_into_view_if_needed(timeout=30 * SECOND)

    # the kernel ----------------------------------------------------------------------------------
    def execute(self, code: str) -> str:
        """Run code in the kernel beside the cells; returns what it printed."""
        answer = self.page.evaluate(
            """async code => {
                const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                const answer = {text: "", error: ""};
                // For a moment after an error the kernel aborts what it is asked.
                for (let tries = 0; tries < 50; tries++) {
                    const future = kernel.requestExecute({code, store_history: false});
                    future.onIOPub = message => {
                        if (message.header.msg_type === "stream")
                            answer.text += message.content.text;
                        if (message.header.msg_type === "error")
                            answer.error = message.content.traceback.join("\\n");
                    };
                    const reply = await future.done;
                    if (reply.content.status !== "aborted") return answer;
                    await new Promise(later => setTimeout(later, 100));
                }
                throw new Error("the kernel aborts all it is asked");
            }""",
            code,
        )
        if answer["error"]:
            raise AssertionError(answer["error"])
        return str(answer["text"])

    def value(self, expression: str) -> Any:
        """Value of a Python expression in the kernel; what JSON cannot say comes as its str."""
        code = f"import json as _json\nprint('\\n=>' + _json.dumps({expression}, default=str))"
        return json.loads(self.execute(code).rsplit("\n=>", 1)[1])

    def wait_for_value(self, expression: str, timeout: float = 60) -> Any:
        """Ask the kernel until the expression is true."""
        deadline = time.monotonic() + timeout
        while not (value := self.value(expression)):
            if time.monotonic() > deadline:
                raise AssertionError(f"{expression} is still {value!r} after {timeout} s")
            self.page.wait_for_timeout(100)
        return value
