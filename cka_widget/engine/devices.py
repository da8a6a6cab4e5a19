"""Devices: which one a run takes, how much memory it has, and how it says that there is no more."""

from __future__ import annotations

import math
import os

import torch

from cka_widget.engine.errors import message
from cka_widget.names import did_you_mean

_DEVICES = ("cpu", "cuda", "mps", "xpu")
_RAN_OUT = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "MPS backend out of memory",
)


def pick_device(device: str | torch.device | None) -> torch.device:
    """The given device; without one CUDA, then Apple's MPS, then the CPU.

    Raises:
        ValueError: torch knows no such device, or does not find it on this machine.
    """
    chosen = None if device is None else _existing(device)
    if torch.cuda.is_available() and (chosen is None or chosen == torch.device("cuda")):
        return torch.device("cuda", torch.cuda.current_device())
    if chosen is not None:
        return chosen
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _existing(device: str | int | torch.device) -> torch.device:
    said = f"device={str(device)!r}"
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        name = str(device).partition(":")[0].lower()
        near = '; did you mean "cuda"?' if name == "gpu" else did_you_mean(name, _DEVICES)
        raise ValueError(
            f"{said} is not known{near or '; choose one of ' + ', '.join(_DEVICES)}"
        ) from None
    if chosen.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not found:
            raise ValueError(f'{said}: torch finds no CUDA device here; take device="cpu" or None')
        if (chosen.index or 0) >= found:
            there = ", ".join(f"cuda:{i}" for i in range(found))
            raise ValueError(f"{said}: there is no such device here, only {there}")
    elif chosen.type != "cpu":
        try:
            torch.zeros(1, device=chosen).tolist()
        except Exception as error:  # each backend has its own way to say so
            raise ValueError(f'{said} cannot be used here; take device="cpu" or None') from error
    return chosen


def memory_of(device: torch.device) -> float:
    """Bytes the device has free; of a CPU's memory all, since caches give way. inf: unknown.

    On CUDA also what torch's allocator has taken and does not use: it is given to whoever asks.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return math.inf


def ran_out(error: BaseException) -> bool:
    """Whether memory ran out, in any of the words that torch and NVIDIA's libraries have for it."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    said = message(error)
    return isinstance(error, RuntimeError) and any(words in said for words in _RAN_OUT)
