"""What the GPU benchmark counts, where no GPU is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("workloads", "models", "gpu_costs", "contestants", "reference", "on_gpu"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import gpu_costs

    return gpu_costs


def work(costs: Any, *layers: nn.Module) -> Any:
    from workloads import Workload

    return Workload("", "", {"a": nn.Sequential(*layers)}, [torch.randn(8, 6)], None, (), 1)


def test_in_place_layers_count_and_what_is_passed_on_does_not(costs: Any) -> None:
    linear = nn.Linear(6, 10)
    assert costs.features(work(costs, linear)) == 80
    assert costs.features(work(costs, linear, nn.ReLU(inplace=True))) == 160
    assert costs.features(work(costs, linear, nn.ReLU(inplace=True), nn.Identity())) == 160


def test_events_of_the_device_are_told_by_equality(
    costs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch makes a new object of the same device type each time."""

    class Kind:
        def __init__(self, name: str) -> None:
            self.name = name

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Kind) and other.name == self.name

        __hash__ = None  # type: ignore[assignment]

    def event(name: str, microseconds: float) -> Any:
        return SimpleNamespace(device_type=Kind(name), self_device_time_total=microseconds, count=3)

    class Profile:
        def __enter__(self) -> Profile:
            return self

        def __exit__(self, *_: object) -> None: ...

        def key_averages(self) -> list[Any]:
            return [event("cuda", 2000.0), event("cpu", 9000.0), event("cuda", 500.0)]

    asked: list[Any] = []
    monkeypatch.setattr(
        torch.profiler, "profile", lambda activities: asked.extend(activities) or Profile()
    )
    monkeypatch.setattr(torch.autograd, "DeviceType", SimpleNamespace(CUDA=Kind("cuda")))
    monkeypatch.setattr(costs, "wait", lambda device: None)
    found = costs.profiled(torch.device("cuda"), lambda: None)
    assert found == {"gpu_ms": 2.5, "kernels": 6}
    assert asked == [torch.profiler.ProfilerActivity.CUDA], "the host's are many, and slow to list"


def test_one_batch_is_profiled_and_not_the_first(
    costs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import on_gpu
    from workloads import Workload

    passes: list[int] = []
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    model.register_forward_hook(lambda _m, _a, out: passes.append(len(out)))
    batches = [torch.randn(8, 6) for _ in range(on_gpu.FIRST + 2)]
    profiled: list[int] = []

    def noted(device: torch.device, call: Any) -> None:
        profiled.append(len(passes))
        call()
        profiled.append(len(passes))

    monkeypatch.setattr(costs, "profiled", noted)
    row = on_gpu.Row("particles", None, "highest")
    seen = on_gpu.look(Workload("", "", {"a": model}, batches, None, (), 1), row)
    before, after = profiled
    assert passes[before:after] == [8]
    assert sum(n == 8 for n in passes[2:before]) == row.first + 1  # beside two bare passes
    assert seen.bytes == sum(8 * d * 4 for d in (5, 4))
    assert list(seen.matrix.index) == list(seen.matrix.columns)
    assert len(model._forward_hooks) == 1, "the run has left the model"
