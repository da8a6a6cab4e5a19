"""Processes that run when they are told to, one at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping

Seconds = tuple[float, float]  # of the wall, of the processor


class Process:
    """A script in a process of its own that answers with `serve`.

    Raises:
        RuntimeError: it ended instead of answering.
    """

    def __init__(self, arguments: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._answer()

    def ask(self, what: str) -> Seconds:
        """Have it do one of its acts; how long that took."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        wall, cpu = self._answer()
        return wall, cpu

    def _answer(self) -> list[float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"process ended with {self._process.wait()}")
        found: list[float] = json.loads(line)
        return found

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def serve(acts: Mapping[str, Callable[[], Seconds]]) -> None:
    """Answer the process that started this one until it hangs up."""
    with os.fdopen(os.dup(1), "w") as answers:  # what acts print goes elsewhere
        os.dup2(2, 1)
        print("[]", file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(acts[line.strip()]()), file=answers, flush=True)
