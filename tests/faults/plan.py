"""How many faults of which kind there are."""

from __future__ import annotations

import gc
import logging
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from faults import errors, interrupts, races
from faults.scene import Violation

Fault = Callable[[random.Random], str]

# The kind, what makes one of it, and how many there are in all.
PLAN: dict[str, tuple[Fault, int]] = {
    "errors-in-compare": (errors.in_compare, 500),
    "errors-in-a-consumer": (errors.in_a_consumer, 100),
    "errors-in-torch-cka": (errors.in_torch_cka, 100),
    "errors-in-an-explorer": (errors.in_an_explorer, 150),
    **{
        f"{times}-in-{where}": (partial(getattr(interrupts, f"in_{where}"), twice=twice), number)
        for where, number in (
            ("compare", 300),
            ("iter_compare", 100),
            ("torch_cka", 100),
            ("introspect", 100),
            ("an_explorer", 100),
        )
        for times, twice in (("ctrl-c", False), ("ctrl-c-twice", True))
    },
    "sent-to-compare": (interrupts.sent_to_compare, 200),
    "sent-to-an-explorer": (interrupts.sent_to_an_explorer, 100),
    "races": (races.race, 150),
}


def fault(kind: str, number: int, seed: int) -> str | None:
    """Make one, which its number and the seed determine; what is wrong after it, or None."""
    rng = random.Random(f"{seed} {kind} {number}")
    torch.manual_seed(rng.randrange(1 << 30))
    try:
        PLAN[kind][0](rng)
    except Violation as found:
        return str(found)
    except BaseException as found:
        return f"the fault itself: {found!r} ({_where(found)})"
    finally:
        if number % 20 == 0:
            gc.collect()
    return None


def _where(error: BaseException) -> str:
    at = error.__traceback__
    lines = []
    while at is not None:
        lines.append(f"{at.tb_frame.f_code.co_filename.rpartition('/')[2]}:{at.tb_lineno}")
        at = at.tb_next
    return " ".join(lines[-6:])


@contextmanager
def prepared() -> Iterator[None]:
    """Ctrl-C raises, and what an explorer says of failing observers is not shown."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    said, died, left = threading.excepthook, sys.unraisablehook, logging.root.manager.disable
    quiet: Callable[[Any], None] = lambda args: None  # noqa: E731
    threading.excepthook, sys.unraisablehook = quiet, quiet
    logging.disable(logging.CRITICAL)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        logging.disable(left)
        threading.excepthook, sys.unraisablehook = said, died
        signal.signal(signal.SIGINT, handler)
