"""After a run the C library keeps a large block that is freed, and its pages."""

import mmap
import os
import platform
import subprocess
import sys

import pytest

# A process of its own: any large block that was ever freed counts.
_PROGRAM = """
import resource, sys
import numpy as np
import torch
from cka_widget import compare

torch.set_num_threads(1)
if sys.argv[1] == "run":
    compare({"net": torch.nn.Sequential(torch.nn.Tanh())}, [torch.randn(8, 4)], device="cpu")

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(20 << 20, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

new_pages()
print(new_pages())
"""


def _pages_asked_for_again(what: str) -> int:
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    environment["NUMPY_MADVISE_HUGEPAGE"] = "0"  # no pages of 2 MB
    command = [sys.executable, "-W", "ignore", "-c", _PROGRAM, what]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout.splitlines()[-1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's threshold")
def test_a_block_that_was_freed_is_used_again() -> None:
    pages = (20 << 20) // mmap.PAGESIZE
    assert _pages_asked_for_again("nothing") > 0.9 * pages
    assert _pages_asked_for_again("run") < 0.1 * pages
