"""`make demo`'s launcher: the address that it prints opens the quickstart."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser.serving import SECOND, UP, end, free_port, visit, wait_until_up
from playwright.sync_api import Browser, expect

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """What the launcher prints; the wanted port is taken, so it has to find another."""
    env = dict(os.environ, HOME=str(tmp_path), JUPYTER_NO_CONFIG="1", PYTHONUNBUFFERED="1")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        env.pop(name, None)
    with socket.socket() as taken, (tmp_path / "log").open("w") as log:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, str(ROOT / "scripts/demo.py"), "--port", port]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=env, stdout=log, stderr=log, start_new_session=True
        )
        deadline = time.monotonic() + UP
        while not (found := re.search(r"http://\S+", (tmp_path / "log").read_text())):
            assert time.monotonic() < deadline, "no address was printed"
            time.sleep(0.1)
        assert f":{port}/" not in found[0]
        wait_until_up(process, found[0], tmp_path / "log")  # it comes up after that
        yield found[0]
        end(process)


def test_the_printed_address_opens_the_quickstart(address: str, chromium: Browser) -> None:
    page = chromium.new_page()
    visit(page, address)
    expect(page.locator(".jp-Notebook .jp-CodeCell").first).to_be_visible(timeout=UP * SECOND)
    expect(page.locator(".jp-Notebook")).to_contain_text("cka_widget")
    page.close()
