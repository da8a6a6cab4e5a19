"""Carry torch's thread-local settings from the thread that starts a run to the one that works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch


def capture() -> Callable[[], AbstractContextManager[None]]:
    """Read this thread's grad, inference, autocast, default device and thread number.

    Returns:
        A function whose context applies them in another thread.
    """
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    threads = torch.get_num_threads()
    autocast = {device: _autocast(device) for device in ("cpu", "cuda")}
    default_device = torch.get_default_device() if hasattr(torch, "get_default_device") else None
    cuda = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    @contextmanager
    def apply() -> Iterator[None]:
        # OpenMP keeps its number of threads per thread: a fresh one would take every core.
        torch.set_num_threads(threads)
        with ExitStack() as stack:
            if cuda is not None:
                stack.enter_context(torch.cuda.device(cuda))
            if default_device is not None and default_device != torch.get_default_device():
                stack.enter_context(default_device)
            for device, (enabled, dtype) in autocast.items():
                if enabled:
                    stack.enter_context(torch.autocast(device, dtype=dtype))
            stack.enter_context(torch.set_grad_enabled(grad))
            if inference:
                stack.enter_context(torch.inference_mode())
            yield

    return apply


def _autocast(device: str) -> tuple[bool, torch.dtype]:
    if hasattr(torch, "get_autocast_dtype"):
        return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    if device == "cuda":
        return torch.is_autocast_enabled(), torch.get_autocast_gpu_dtype()
    return torch.is_autocast_cpu_enabled(), torch.get_autocast_cpu_dtype()
