"""Compiled, data-parallel and scripted models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import zoo
from checks import TOLERANCE, largest_error, run
from oracles import reference_compare
from torch import nn
from torch.nn.utils import prune


def test_compiled_models_are_unwrapped() -> None:
    """Hooks added after compilation are ignored by compiled code (pytorch issue 117758)."""
    inner, batches = zoo.mlp(), zoo.vectors()
    reference = reference_compare({"a": inner, "b": zoo.mlp(1)}, batches)
    compiled = torch.compile(inner, backend="eager")
    result = run({"a": compiled, "b": zoo.mlp(1)}, batches)
    assert result.layers("a") == [str(i) for i in range(5)]
    assert largest_error(result, reference) <= TOLERANCE


def test_compiled_and_already_used() -> None:
    inner, batches = zoo.mlp(), zoo.vectors()
    compiled = torch.compile(inner, backend="eager")
    with torch.no_grad():
        compiled(batches[0])
    reference = reference_compare({"a": inner}, batches)
    assert largest_error(run({"a": compiled}, batches), reference) <= TOLERANCE
    with torch.no_grad():
        torch.testing.assert_close(compiled(batches[0]), inner(batches[0]))


def test_compiled_in_place() -> None:
    model, batches = zoo.mlp(), zoo.vectors()
    reference = reference_compare({"a": zoo.mlp()}, batches)
    model.compile(backend="eager")
    with torch.no_grad():
        model(batches[0])
    before = zoo.state_of(model)
    assert largest_error(run({"a": model}, batches), reference) <= TOLERANCE
    zoo.assert_same_state(before, model)


def test_compiled_children_have_their_own_names() -> None:
    plain = nn.Sequential(zoo.mlp(), nn.ReLU())
    reference = reference_compare({"a": plain}, zoo.vectors())
    parent = nn.Sequential(torch.compile(zoo.mlp(), backend="eager"), nn.ReLU())
    result = run({"a": parent}, zoo.vectors())
    assert result.layers("a") == ["0.0", "0.1", "0.2", "0.3", "0", "1"]
    assert largest_error(result, reference) <= TOLERANCE


def test_a_compiled_function_inside() -> None:
    function = torch.compile(lambda x: torch.relu(x) + 1, backend="eager")
    model = nn.Sequential(zoo.mlp(), zoo.Returns(function))
    reference = reference_compare({"a": model}, zoo.vectors())
    assert largest_error(run({"a": model}, zoo.vectors()), reference) <= TOLERANCE


def test_data_parallel_is_unwrapped() -> None:
    inner, batches = zoo.mlp(), zoo.vectors()
    result = run({"a": nn.DataParallel(inner), "b": inner}, batches)
    assert result.layers("a") == result.layers("b")
    np.testing.assert_allclose(np.diag(result.matrix("a", "b")), 1.0, atol=1e-6)
    both = torch.compile(nn.DataParallel(inner), backend="eager")
    assert run({"a": both}, batches).layers("a") == result.layers("b")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_and_traced_models_are_refused() -> None:
    for scripted in (torch.jit.script(zoo.mlp()), torch.jit.trace(zoo.mlp(), torch.randn(4, 8))):
        with pytest.raises(TypeError, match='model "a" is a scripted or traced module'):
            run({"a": scripted}, zoo.vectors())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_child_is_one_layer() -> None:
    plain = nn.Sequential(zoo.mlp(), nn.ReLU())
    model = nn.Sequential(torch.jit.script(zoo.mlp()), nn.ReLU())
    before = zoo.state_of(model)
    result = run({"a": model}, zoo.vectors())
    assert result.layers("a") == ["0", "1"]
    assert largest_error(result, reference_compare({"a": plain}, zoo.vectors())) <= TOLERANCE
    zoo.assert_same_state(before, model)


def test_inference_tensors_as_input() -> None:
    with torch.inference_mode():
        batches = zoo.vectors()
        batches = [b * 1.0 for b in batches]
    models = {"a": zoo.mlp(), "b": zoo.seeded(zoo.Nested)}
    result = run(models, batches)
    reference = reference_compare(models, [b.clone() for b in batches])
    assert largest_error(result, reference) <= TOLERANCE


def test_called_under_inference_mode() -> None:
    models, batches = (
        {"a": zoo.seeded(zoo.Nested), "b": zoo.seeded(zoo.InPlaceChain)},
        zoo.vectors(),
    )
    reference = reference_compare(models, batches)
    with torch.inference_mode():
        result = run(models, batches)
    assert largest_error(result, reference) <= TOLERANCE
    assert result.layers("a") == ["body.inner.0", "body", "tail.0", "tail", "(output)"]


def test_weight_norm_hooks_and_pruned_masks() -> None:
    model = zoo.mlp()
    nn.utils.parametrizations.weight_norm(model[0])
    prune.random_unstructured(model[2], "weight", 0.5)
    reference = reference_compare({"a": model}, zoo.vectors())
    before = zoo.state_of(model)
    assert largest_error(run({"a": model}, zoo.vectors()), reference) <= TOLERANCE
    zoo.assert_same_state(before, model)


def test_hooks_of_the_owner_that_change_outputs_count() -> None:
    model = zoo.mlp()
    model[0].register_forward_hook(lambda module, args, output: output.sin())
    reference = reference_compare({"a": model}, zoo.vectors())
    assert largest_error(run({"a": model}, zoo.vectors()), reference) <= TOLERANCE


def test_distributed_data_parallel_is_unwrapped() -> None:
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        plain = zoo.mlp()
        wrapped = nn.parallel.DistributedDataParallel(plain)
        expected = run({"a": plain, "b": zoo.mlp(1)}, zoo.vectors())
        found = run({"a": wrapped, "b": zoo.mlp(1)}, zoo.vectors())
    finally:
        torch.distributed.destroy_process_group()
    assert found.layers("a") == expected.layers("a")
    np.testing.assert_array_equal(found.matrix("a", "b"), expected.matrix("a", "b"))


@pytest.mark.parametrize("layers", [None, ["layers.0.linear1", "layers.1.norm1"]])
def test_inner_modules_of_an_encoder_that_torch_would_fuse(layers: list[str] | None) -> None:
    """In evaluation mode one kernel takes the place of a layer's modules (pytorch issue 128413)."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    batches = [torch.randn(12, 5, 8) for _ in range(3)]
    result = run({"a": model}, batches, layers=layers)
    assert {"layers.0.linear1", "layers.1.norm1"} <= set(result.layers("a"))
    assert largest_error(result, reference_compare({"a": model}, batches)) <= TOLERANCE
