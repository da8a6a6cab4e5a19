"""Settings of the whole test suite; needs nothing but torch and pytest, so that the engine's and
the GPU tests run where no widget package is installed."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest
import torch

# A shell's background jobs begin with Ctrl-C ignored, which Python leaves so.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Small networks are many times slower on two threads than on one when the cores are shared.
torch.set_num_threads(1)

try:
    from hypothesis import HealthCheck, settings
except ImportError:
    pass
else:
    # A busy machine is slow, not wrong; a failing example is printed, so it can be pinned.
    settings.register_profile(
        "cka", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("cka")


collect_ignore = [] if find_spec("playwright") else ["browser"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """GPU tests are skipped without CUDA; browser tests come last: what is cheap fails first."""
    no_cuda = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(no_cuda)
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)
