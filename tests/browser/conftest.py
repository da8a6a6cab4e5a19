"""One warm JupyterLab and one Chromium for all browser tests; a fresh page for each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser.lab import Notebook, Server
from browser.serving import SECOND
from find_browser import ADVICE, find
from playwright.sync_api import Browser, expect, sync_playwright

HERE = Path(__file__).parent
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
]

# What a test claims of time it says itself; all else may take what a busy machine needs.
expect.set_options(timeout=30 * SECOND)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is a browser test."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab, serving copies of the notebooks."""
    server = Server(tmp_path_factory.mktemp("jupyter"))
    for notebook in (HERE.parents[1] / "notebooks").glob("*.ipynb"):
        shutil.copy(notebook, server.root)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A headless Chromium."""
    path = find()
    if path is None:
        pytest.fail(f"no browser: {ADVICE}.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def notebook(server: Server, chromium: Browser) -> Iterator[Notebook]:
    """A page of 1400 x 900 pixels for one notebook; its kernel goes with it."""
    context = chromium.new_context(viewport={"width": 1400, "height": 900})
    notebook = Notebook(server, context.new_page())
    yield notebook
    notebook.close()
    context.close()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Folder of the pictures to look at."""
    folder = HERE / "screenshots"
    folder.mkdir(exist_ok=True)
    return folder
