"""Servers of notebooks: each a process on a port of its own, until it answers."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

SECOND = 1000  # Playwright counts in milliseconds
UP = 120
"""Seconds for a server or a page to come up; the machine may have more to do."""


def free_port() -> int:
    """A port that stays free: below those that systems give to whoever asks for any.

    A kernel alone asks for five of those, between this choice and the server's start.
    """
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
            except OSError:
                continue
            return int(probe.getsockname()[1])


def start(
    command: Sequence[str], home: Path, env: Mapping[str, str], log: Path, python: str
) -> subprocess.Popen[Any]:
    """Start `python -m command` in a session of its own; what it says goes to a file."""
    with log.open("w") as out:
        return subprocess.Popen(
            [python, "-m", *command],
            cwd=home, env=env, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip


def wait_until_up(process: subprocess.Popen[Any], address: str, log: Path) -> None:
    """Wait until an address is answered, whatever the answer; ends the process if it is not."""
    deadline = time.monotonic() + UP
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=UP).close()
        except urllib.error.HTTPError:
            return
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
        else:
            return
    end(process)
    raise RuntimeError(f"the server did not come up:\n{log.read_text()[-4000:]}")


@contextmanager
def served(
    command: Sequence[str], home: Path, ready: str = "/", python: str = sys.executable
) -> Iterator[str]:
    """Start `python -m command`, with a free port for PORT; gives the address."""
    port = str(free_port())
    env = dict(os.environ, HOME=str(home), OMP_NUM_THREADS="1")
    if python == sys.executable:  # the classic notebook finds its widgets by the configuration
        env["JUPYTER_NO_CONFIG"] = "1"
    env |= {"MARIMO_SKIP_UPDATE_CHECK": "1", "IPYTHONDIR": str(home / "ipython")}
    arguments, log = [part.replace("PORT", port) for part in command], home / "log"
    process = start(arguments, home, env, log, python)
    url = f"http://127.0.0.1:{port}"
    wait_until_up(process, url + ready, log)
    try:
        yield url
    finally:
        end(process)


def end(process: subprocess.Popen[Any]) -> None:
    """End a server that leads a session of its own; one that lingers over a kernel is killed."""
    process.terminate()
    try:
        process.wait(8)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def visit(page: Page, address: str) -> None:
    """Go to a page; what is needed of it is waited for by who needs it.

    A host's page has hundreds of files, and on a busy machine the last has not come after half a
    minute, Playwright's limit.
    """
    page.goto(address, wait_until="commit", timeout=UP * SECOND)
