"""Time in alternation, memory in processes of its own, and the table that shows both."""

from __future__ import annotations

import gc
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch


@dataclass
class Ratios:
    """Cost of a run over that of the bare forward passes just before it."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    seconds: list[tuple[float, float]] = field(default_factory=list)  # run, bare

    def add(self, run: tuple[float, float], floor: tuple[float, float]) -> None:
        self.wall.append(run[0] / floor[0])
        self.cpu.append(run[1] / floor[1])
        self.seconds.append((run[0], floor[0]))

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    def quickest(self) -> float:
        """Fastest run over fastest floor: what other programs on the machine disturb least."""
        return min(r for r, _ in self.seconds) / min(b for _, b in self.seconds)

    def cells(self) -> list[str]:
        """Median with spread; quickest; median of the CPU-time ratios."""
        spread = f"{min(self.wall):.2f} to {max(self.wall):.2f}"
        cpu = statistics.median(self.cpu)
        return [f"{self.median:.2f} ({spread})", f"{self.quickest():.2f}", f"{cpu:.2f}"]


def clocked(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds (of all threads) of one call."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def resident_peak_kib(call: Callable[[], object]) -> int:
    """Highest resident set while `call` runs.

    Linux resets the peak on request; where that is refused the peak since the start counts.
    """
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        call()
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except OSError:
        call()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_subprocess(arguments: list[str], timeout: float) -> str | None:
    """Last line that this script prints in a fresh process, None when it fails."""
    command = [sys.executable, *arguments]
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "0"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=environment
        )
    except subprocess.TimeoutExpired:
        return None
    lines = done.stdout.strip().splitlines()
    return lines[-1] if done.returncode == 0 and lines else None


def processor() -> str:
    """Name of the processor and how many of its cores this process may use."""
    name = "unknown processor"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def circumstances(threads: int) -> str:
    """One line on where and with what it was measured."""
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{processor()}; {threads} threads; torch {torch.__version__}; Python {python}{load}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
