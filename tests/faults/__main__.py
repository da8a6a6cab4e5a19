"""All faults, or some: `python -m faults [--seed 0] [--share 1] [--only KIND[:NUMBER]]`."""

from __future__ import annotations

import argparse
import os
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

from faults.plan import PLAN, fault, prepared


def main() -> int:
    parser = argparse.ArgumentParser(prog="faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of all faults")
    parser.add_argument("--only", default="", help="a kind, or KIND:NUMBER, one fault of it")
    given = parser.parse_args()
    only, _, number = given.only.partition(":")
    print(f"| faults, seed {given.seed} | number | violations | seconds |\n|---|---|---|---|")
    total, wrong = 0, []
    with prepared():
        for kind, (_, times) in PLAN.items():
            if only not in ("", kind):
                continue
            start, found = time.perf_counter(), []
            numbers = [int(number)] if number else range(max(1, round(times * given.share)))
            for one in numbers:
                if (said := fault(kind, one, given.seed)) is not None:
                    found.append(f"{kind}:{one}: {said}")
                    print(found[-1], file=sys.stderr, flush=True)
            total, wrong = total + len(numbers), wrong + found
            seconds = time.perf_counter() - start
            print(f"| {kind} | {len(numbers)} | {len(found)} | {seconds:.0f} |", flush=True)
    print(f"| all | {total} | {len(wrong)} | |")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
