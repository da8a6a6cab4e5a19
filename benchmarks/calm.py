"""How threads wait; import before torch, which reads it once.

Threads that wait without spinning spend processor time on work alone, and leave the cores to other
programs: ratios of processor time then hold on a machine that is not idle. numpy's own threads
would escape `torch.set_num_threads`, for the peers as for this project.
"""

import os

SETTINGS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "OPENBLAS_NUM_THREADS": "1"}

for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)
