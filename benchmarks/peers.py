"""Cost above the bare forward passes, extra memory and error: this project beside its peers.

    python benchmarks/environment.py            # once: an environment with the peers
    .bench/bin/python benchmarks/peers.py                       # everything, half an hour
    .bench/bin/python benchmarks/peers.py W1 --quick            # a look, under a minute

The bare forward passes, every peer and this project run in turns, each in a process of its own, as
a user would run it; each run is divided by the bare passes right before it. "median" is that of the
ratios, with the smallest and the largest; "quickest" divides the fastest run by the fastest floor,
which other programs on the machine disturb least; "CPU" is the median ratio of processor time, in
which threads that wait for each other count, as torch has them wait by default;
"its own floor" is the median ratio to bare passes in the contestant's process, where the C library
keeps the memory that the contestant has freed. Extra memory is the peak of the resident set less
that of the bare passes, after one warm-up pass.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import contestants
import measure
import reference
import torch
import turns
from contestants import Contestant
from turns import Process
from workloads import WORKLOADS, Workload, build

HEAD = [
    "",
    "median of ratios",
    "quickest",
    "CPU",
    "its own floor",
    "extra memory",
    "largest error",
    "off by > 0.01",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", default=[], help="W1, W2, W2-mlp, W3, W4")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--size", type=float, default=1.0, help="times the batch size")
    parser.add_argument("--threads", type=int, help="of torch; else the workload's own")
    parser.add_argument("--quick", action="store_true", help="2 rounds, 2 batches, no slow peers")
    parser.add_argument("--own", action="store_true", help="without the peers")
    parser.add_argument("--no-slow", action="store_true", help="without peers above 2 x floor")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--fork", type=Path, help="checkout of the fork with EnsembleCKA")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.batches, options.no_memory, options.no_slow = 2, 2, True, True
    if unknown := set(options.workloads) - set(WORKLOADS):
        parser.error(f"no workload {sorted(unknown)[0]}; choose from {', '.join(WORKLOADS)}")
    for name in options.workloads or WORKLOADS:
        workload = build(name, options.batches, options.size)
        workload.threads = options.threads or workload.threads
        torch.set_num_threads(workload.threads)
        if options.peak_of:
            print(peak(workload, options))
            return
        if options.serve:
            serve(workload, options)
            return
        report(workload, options)


def report(workload: Workload, options: argparse.Namespace) -> None:
    """Measure one workload and print its table."""
    field = [
        c
        for c in contestants.contestants(workload, options.fork)
        if c.own or not (options.own or (options.no_slow and c.batches))
    ]
    print(f"\n### {workload.name}: {workload.title}\n")
    errors, failures = accuracy(workload, field)
    field = [c for c in field if c.name not in failures]
    ratios, beside = time_in_turns(workload, field, options)
    rows = []
    floor = None if options.no_memory else spawn(workload, "bare", options)
    for c in field:
        memory = "not measured"
        if floor is not None and (top := spawn(workload, c.name, options)) is not None:
            memory = f"{(top - floor) / 1024:.0f} MB"
        error, wrong = errors[c.name]
        times = [*ratios[c.name].cells(), f"{beside[c.name].median:.2f}"]
        rows.append([c.name, *times, memory, f"{error:.1e}", f"{100 * wrong:.0f}%"])
    rows += [[name, why, *[""] * 6] for name, why in failures.items()]
    if workload.ensemble and options.fork is None and not (options.own or options.no_slow):
        rows.append(["EnsembleCKA (fork)", "not measured: no --fork", *[""] * 6])
    print(measure.table(HEAD, rows))
    floors = [
        floor / len(workload.batches[: c.batches])
        for c in field
        for _, floor in ratios[c.name].seconds
    ]
    print(f"\n{measure.circumstances(workload.threads)}; {options.rounds} rounds of", end=" ")
    print(
        f"{len(workload.batches)} batches; shortest floor {min(floors) * 1e3:.0f} ms a batch",
        flush=True,
    )


def accuracy(
    workload: Workload, field: list[Contestant]
) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
    """Largest error and share of wrong cells on the first batch; who fails, and why."""
    batch = workload.batches[:1]
    truths = {}
    errors, failures = {}, {}
    for c in field:
        size = next((s for s in workload.hsic if s and str(s) in c.name and c.own), None)
        if size not in truths:
            truths[size] = reference.matrix(workload, batch, size)
        try:
            with contestants.quiet(workload):
                found = c.run(workload, batch)
        except Exception as error:
            failures[c.name] = f"fails: {contestants.sentence(error)}"
            continue
        errors[c.name] = reference.largest_error(found, truths[size])
    return errors, failures


def time_in_turns(
    workload: Workload, field: list[Contestant], options: argparse.Namespace
) -> tuple[dict[str, measure.Ratios], dict[str, measure.Ratios]]:
    """Ratios of every contestant to the bare passes: of their own process, and of its."""
    ratios = {c.name: measure.Ratios() for c in field}
    beside = {c.name: measure.Ratios() for c in field}
    with ExitStack() as stack:
        arguments = [*again(workload, options), "--batches", str(options.batches), "--serve"]
        processes = {
            name: stack.enter_context(closing(Process([*arguments, name])))
            for name in ["bare", *(c.name for c in field)]
        }
        for number in range(options.rounds):
            # Another order each round: nobody always follows the slowest.
            for c in field[number % len(field) :] + field[: number % len(field)]:
                if c.rounds is not None and number >= c.rounds:
                    continue
                own = processes[c.name].ask("bare")
                floor = processes["bare"].ask(c.name)
                spent = processes[c.name].ask("run")
                ratios[c.name].add(spent, floor)
                beside[c.name].add(spent, own)
    return ratios, beside


def serve(workload: Workload, options: argparse.Namespace) -> None:
    """What `time_in_turns` starts: a contestant, or the bare passes over anyone's batches."""
    field = {c.name: c for c in contestants.contestants(workload, options.fork)}

    def clocked(act: Callable[[], object]) -> turns.Seconds:
        with contestants.quiet(workload):
            return measure.clocked(act)

    def bare(c: Contestant) -> Callable[[], turns.Seconds]:
        return lambda: clocked(lambda: contestants.bare(workload, workload.batches[: c.batches]))

    contestants.bare(workload, workload.batches[:1])
    if options.serve == "bare":
        turns.serve({name: bare(c) for name, c in field.items()})
        return
    chosen = field[options.serve]
    batches = workload.batches[: chosen.batches]
    if chosen.rounds is None:  # a slow one's start is lost in its run
        clocked(lambda: chosen.run(workload, batches[:1]))
    turns.serve(
        {"bare": bare(chosen), "run": lambda: clocked(lambda: chosen.run(workload, batches))}
    )


def spawn(workload: Workload, name: str, options: argparse.Namespace) -> int | None:
    """Peak resident KiB of a contestant, or of the bare passes, in a fresh process."""
    arguments = [*again(workload, options), "--batches", "2", "--peak-of", name]
    line = measure.in_subprocess(arguments, timeout=1800)
    return None if line is None else int(line)


def again(workload: Workload, options: argparse.Namespace) -> list[str]:
    """This script for one workload."""
    arguments = [__file__, workload.name, "--threads", str(workload.threads)]
    arguments += ["--size", str(options.size)]
    return arguments if options.fork is None else [*arguments, "--fork", str(options.fork)]


def peak(workload: Workload, options: argparse.Namespace) -> int:
    """What `spawn` asks for. All imports and one bare pass come first."""
    field = {c.name: c for c in contestants.contestants(workload, options.fork)}
    tiny = dataclasses.replace(workload, batches=[b[:8] for b in workload.batches[:1]])
    chosen = field.get(options.peak_of)
    with contestants.quiet(workload):
        if chosen is not None:  # its imports are not its working memory
            chosen.run(tiny, tiny.batches)
        contestants.bare(workload, workload.batches)
        if chosen is None:
            return measure.resident_peak_kib(lambda: contestants.bare(workload, workload.batches))
        return measure.resident_peak_kib(
            lambda: chosen.run(workload, workload.batches[: chosen.batches])
        )


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    main()
