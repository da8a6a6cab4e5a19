"""Networks of the library transformers, as they come, held against an oracle of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers")

from checks import TOLERANCE, run
from zoo import assert_same_state, state_of
from zoo_transformers import oracle
from zoo_transformers.architecture import ZOO, Architecture, Batch

from cka_widget.introspection import introspect
from cka_widget.result.result import CKAResult

# Samples that differ by less, relative to the largest number, may differ by rounding alone.
ROUNDING = 3e-6


def _parameters() -> list[Any]:
    found, seen = [], Counter[str]()
    for architecture in ZOO:
        seen[architecture.model] += 1
        again = f"-{n}" if (n := seen[architecture.model]) > 1 else ""
        marks = [pytest.mark.slow] if architecture.slow else []
        found.append(pytest.param(architecture, id=architecture.model + again, marks=marks))
    return found


@pytest.mark.parametrize("architecture", _parameters())
@pytest.mark.parametrize("same", [True, False], ids=["same", "other"])
def test_rows_are_samples(architecture: Architecture, same: bool) -> None:
    """With as many samples as another axis is long, and with fewer in the last batch."""
    n = architecture.same
    batches = architecture.batches((n, n, n), n) if same else architecture.batches((11, 11, 7), 10)
    model, twin = _as_found(architecture), architecture.build().eval()
    before = state_of(model)
    before["hooks"] = _hooks_after_a_pass(twin, batches[0])
    if same:
        assert introspect(model, batches[0]).ran
    result = run({"a": model}, batches, device="cpu", hsic_batch_size=None)
    assert_same_state(before, model)

    model.eval()
    _assert_same_outputs(model, twin, batches[0])
    rows = _labelled(model, *oracle.outputs(model, batches))
    assert [layer for layer in result.layers("a") if layer not in rows] == []
    _assert_complete(result, rows)
    _assert_values(result, rows)


def _as_found(architecture: Architecture) -> nn.Module:
    """As a user has it: in training mode, some of it frozen, children in evaluation mode."""
    model = architecture.build().train()
    for parameter in list(model.parameters())[::3]:
        parameter.requires_grad_(False)
    for child in list(model.children())[::2]:
        child.eval()
    return model


def _hooks_after_a_pass(twin: nn.Module, batch: Batch) -> Any:
    """Hooks that a model of the library registers on itself as it runs are its own."""
    with torch.no_grad():
        twin(**batch)
    return state_of(twin)["hooks"]


def _labelled(
    model: nn.Module, rows: dict[oracle.Call, oracle.Row], others: set[oracle.Call]
) -> dict[str, oracle.Row]:
    """By the module's name, with the number of the call where there are several."""
    names = {module: name or "(output)" for name, module in model.named_modules()}
    calls = Counter(module for module, _ in [*rows, *others])
    return {
        f"{names[module]}#{number}" if calls[module] > 1 else names[module]: row
        for (module, number), row in rows.items()
    }


def _assert_complete(result: CKAResult, rows: dict[str, oracle.Row]) -> None:
    """Every row of samples is there, by its own name or by that of the same output."""
    for label, row in rows.items():
        shown = result.rows[0].aliases.get(label, label)
        assert shown in result.layers("a"), f"{label} is left out"
        assert all(map(np.array_equal, row, rows[shown])), f"{label} is not the same as {shown}"


def _assert_values(result: CKAResult, rows: dict[str, oracle.Row]) -> None:
    """Every cell; a layer is undefined where its samples are the same, and nowhere else."""
    layers = [layer for layer in result.layers("a") if layer in rows]
    found = result.matrix("a", "a").loc[layers, layers].to_numpy()
    for layer, value in zip(layers, found.diagonal(), strict=True):
        spread = oracle.spread(rows[layer])
        assert spread <= ROUNDING or not np.isnan(value), f"{layer} has no value"
        assert spread > 0 or np.isnan(value), f"{layer} has a value, and always the same output"
    varied = [oracle.spread(rows[layer]) > ROUNDING for layer in layers]
    expected = oracle.cka([rows[layer] for layer in layers])
    np.testing.assert_allclose(
        found[varied][:, varied], expected[varied][:, varied], rtol=0, atol=TOLERANCE
    )


def _assert_same_outputs(model: nn.Module, twin: nn.Module, batch: Batch) -> None:
    """What a model gives after a run, hidden states too, is what one without a run gives."""
    with torch.no_grad():
        found, expected = (list(_tensors(each(**batch))) for each in (model, twin))
    torch.testing.assert_close(found, expected, equal_nan=True)


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, Mapping)):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part)
