"""LayerTree: what ran, how often, with which shape; and the model as it was found."""

from __future__ import annotations

import gc
import random
import time
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchinfo
import zoo
from torch import nn

from cka_widget.engine.compare import compare
from cka_widget.introspection import introspect

VECTOR = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
IMAGE = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
SEQUENCE = torch.randn(6, 7, 8, generator=torch.Generator().manual_seed(0))


def tree_of(model: nn.Module, batch: object = VECTOR, **options: object):
    before = zoo.state_of(model)
    tree = introspect(model, batch, **options)
    zoo.assert_same_state(before, model)
    names = [n.replace("._orig_mod", "") for n, _ in model.named_modules() if n]
    assert [n.name for n in tree] == list(dict.fromkeys(names))
    return tree


def test_names_classes_shapes_and_parameters() -> None:
    model = zoo.resnet18()
    tree = tree_of(model, IMAGE)
    assert tree.ran
    assert tree.error is None
    assert tree["layer2.0.conv1"].output_shape == (16, 8, 8)
    assert tree["layer2.0.conv1"].class_name == "Conv2d"
    assert tree["layer2.0"].depth == 1
    assert tree["fc"].output_shape == (10,)
    for name, module in model.named_modules():
        if name:
            assert tree[name].n_params == sum(p.numel() for p in module.parameters())


def test_calls_and_aliases() -> None:
    tree = tree_of(zoo.resnet18(), IMAGE)
    assert tree["layer1.0.relu"].calls == 2
    assert tree["layer1.0.relu"].alias_of is None, "its first call is not the block's output"
    assert tree["bn1"].alias_of is None, "an in-place ReLU overwrote it"
    assert tree["layer1.1"].alias_of == "layer1"
    assert tree["layer1.0"].alias_of is None
    assert tree["layer2.0.downsample.1"].alias_of == "layer2.0.downsample"


def test_the_outermost_container_names_an_alias() -> None:
    tree = tree_of(zoo.Nested())
    assert tree["body.inner.1.0"].alias_of == "body"
    assert tree["body.inner"].alias_of == "body"
    assert tree["body.drop"].alias_of == "body"
    assert tree["body"].alias_of is None
    assert tree["body.inner.0"].alias_of is None
    assert tree["tail.0"].alias_of is None
    assert tree["tail.1"].alias_of == "tail"


def test_repeated_calls_and_shared_modules() -> None:
    tree = tree_of(zoo.CalledTwice(times=3))
    assert (tree["step"].calls, tree["act"].calls, tree["stem"].calls) == (3, 4, 1)
    shared = tree_of(zoo.SharedModule())
    assert shared["encode"].calls == 2
    assert "again" not in shared


def test_what_never_ran() -> None:
    tree = tree_of(zoo.NeverCalled())
    assert tree["steps"].calls == 0
    assert tree["steps.1"].calls == 1
    assert tree["aux.0"].calls == 0
    assert tree["aux.0"].output_shape is None
    status = {node["name"]: node["status"] for node in tree.to_nodes()}
    assert status["aux"] == status["steps"] == "never ran"
    assert status["steps.0"] == "ran"
    assert tree.leaves() == ["steps.0", "steps.1", "steps.2", "head"]
    assert "never ran" in repr(tree)


def test_presets() -> None:
    tree = tree_of(zoo.resnet18(), IMAGE)
    assert tree.blocks()[:3] == ["layer1", "layer1.0", "layer1.1"]
    classes = tree.by_class()
    assert len(classes["Conv2d"]) == len(classes["BatchNorm2d"]) == 20
    assert set(tree.leaves()).isdisjoint(tree.blocks())


def test_nodes_for_the_picker() -> None:
    nodes = tree_of(zoo.resnet18(), IMAGE).to_nodes()
    keys = (
        "name",
        "label",
        "cls",
        "shape",
        "params",
        "calls",
        "depth",
        "parent",
        "status",
        "alias",
        "why",
    )
    assert tuple(nodes[0]) == keys
    for node in nodes:
        parent = node["name"].rpartition(".")[0]
        assert node["parent"] == next((i for i, n in enumerate(nodes) if n["name"] == parent), -1)
    conv = next(n for n in nodes if n["name"] == "layer2.0.conv1")
    assert (conv["label"], conv["shape"], conv["status"]) == ("conv1", "16×8×8", "ran")
    assert next(n for n in nodes if n["name"] == "layer1.1")["status"] == "alias"


@pytest.mark.parametrize(
    "batch",
    [VECTOR, (VECTOR, torch.arange(6)), [VECTOR, torch.arange(6)], VECTOR[:1]],
    ids=["tensor", "tuple", "list", "one sample"],
)
def test_batches(batch: object) -> None:
    assert tree_of(zoo.mlp(), batch)["0"].output_shape == (16,)


def test_mapping_batches() -> None:
    tree = tree_of(zoo.TokenClassifier(), zoo.token_batches()[0])
    assert tree.error is None
    assert tree["embed"].output_shape == (9, 8)
    assert tree["embed"].calls == 2


def test_forward() -> None:
    batch = {"pixels": VECTOR, "id": ["a", "b"]}
    tree = tree_of(zoo.mlp(), batch, forward=lambda model, b: model(b["pixels"]))
    assert tree.ran
    assert tree["4"].output_shape == (5,)


def test_two_and_three_samples_are_enough() -> None:
    model = zoo.Counting(zoo.mlp())
    assert introspect(model, VECTOR).seconds > 0
    assert (model.probed, model.sizes) == ([2, 3], [])
    assert introspect(model, VECTOR[:2]).seconds is None
    assert (model.probed, model.sizes) == ([2, 3, 2], [])


class Mixed(nn.Module):
    """Rows of samples, of time, of windows; a table of positions, indices and a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.windows, self.head = nn.Linear(8, 6), nn.Linear(6, 4), nn.Linear(4, 3)
        self.positions, self.table = zoo.Returns(lambda x: x * 2), nn.Embedding(7, 6)
        self.first, self.pick = zoo.Returns(lambda x: x.mT.mT), zoo.Returns(lambda x: x.argmax(-1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (n, 7, 8)
        x = self.embed(x) + self.positions(self.table(torch.arange(7)))
        x = self.first(x.movedim(0, 1)).movedim(1, 0)
        self.pick(x)
        x = self.windows(x.reshape(-1, 6))  # 7 rows a sample
        return self.head(x.reshape(-1, 7, 4))


def test_where_an_output_has_its_samples_and_why_it_has_none() -> None:
    model = Mixed()
    tree = tree_of(model, SEQUENCE)
    shapes = {node.name: node.output_shape for node in tree}
    assert shapes == {
        "embed": (7, 6),
        "windows": (7, 4),
        "head": (7, 3),
        "positions": (7, 6),
        "table": (7, 6),
        "first": (7, 6),
        "pick": (7,),
    }
    reasons = {node.name: node.why_not for node in tree if node.why_not}
    assert set(reasons) == {"positions", "table", "pick"}
    assert "as large for 2 samples as for 3" in reasons["table"]
    assert "int64" in reasons["pick"]
    assert set(tree.leaves()) == {"embed", "windows", "head", "first"}
    nodes = {node["name"]: node for node in tree.to_nodes()}
    assert nodes["table"]["status"] == "no rows"
    assert nodes["table"]["why"] == reasons["table"]
    assert reasons["table"] in repr(tree)
    result = compare({"m": model}, [SEQUENCE] * 2, device="cpu", progress=False)
    assert set(result.layers("m")) == set(tree.leaves())
    assert tree.distinct == len(tree.leaves())


def test_a_module_with_rows_in_one_call_alone_has_rows() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.weight = nn.Tanh(), nn.Parameter(torch.randn(8, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(x @ self.act(self.weight))

    tree = tree_of(Twice())
    assert tree["act"].calls == 2
    assert tree["act"].why_not is None
    assert tree.distinct == 1


def test_a_model_that_needs_more_samples_gets_them() -> None:
    model = nn.Sequential(zoo.Returns(lambda x: x.reshape(-1, 3, 8).sum(1)), nn.Linear(8, 2))
    tree = tree_of(model)
    assert tree.ran
    assert tree["1"].calls == 1


def test_every_type_of_output() -> None:
    tree = tree_of(zoo.Outputs())
    assert tree.error is None
    for name in ("tuple", "none_first", "dict", "dataclass", "model_output"):
        assert tree[name].output_shape == (10,), name
    text = tree_of(zoo.Text())
    assert text.ran
    assert text["words"].output_shape is None
    assert text["words"].calls == 1
    assert text["scalar"].output_shape == ()


def test_inner_modules_of_an_encoder_that_torch_would_fuse() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    tree = tree_of(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval(), SEQUENCE)
    assert {node.name for node in tree if not node.calls} == {
        "layers",
        "layers.0.self_attn.out_proj",  # torch reads its weights, and never calls it
    }


def test_sequences() -> None:
    tree = tree_of(zoo.Recurrent(), SEQUENCE)
    assert tree["first"].output_shape == (7, 6)
    assert tree["second"].output_shape == (7, 6)
    assert tree_of(zoo.Attention(), SEQUENCE)["attention"].output_shape == (7, 8)
    assert tree_of(zoo.encoder(), SEQUENCE)["layers.1"].output_shape == (7, 8)


def test_frozen_children_and_training_mode_stay() -> None:
    tree_of(zoo.FrozenChild())


def test_failure_names_the_layer_and_keeps_what_ran() -> None:
    model = zoo.Raises(at=1)
    model.fuse.at = -1  # compared with a count that only rises

    def always(x: torch.Tensor) -> torch.Tensor:
        raise ValueError("the fuse blew\nmore lines")

    model.fuse.forward = always
    tree = tree_of(model)
    assert tree.error == "Raises could not run on this batch: ValueError in fuse: the fuse blew"
    assert not tree.ran
    assert tree["lin"].output_shape == (12,)
    assert {node["status"] for node in tree.to_nodes()} == {"ran"}, "nothing is known of the rest"
    assert tree.error in repr(tree)


def test_wrong_input_is_an_error_sentence() -> None:
    tree = tree_of(zoo.mlp(), torch.randn(4, 3))
    assert tree.error.startswith("Sequential could not run on this batch: RuntimeError in 0: mat1")
    assert "\n" not in tree.error


def test_without_a_batch_nothing_runs() -> None:
    model = zoo.Counting(zoo.mlp())
    tree = tree_of(model, None)
    assert model.sizes == []
    assert not tree.ran
    assert tree.error is None
    assert len(tree) == len(list(model.modules())) - 1


def test_torchinfo_failing_before_the_run_leaves_no_hook() -> None:
    model = nn.Sequential(nn.Linear(8, 4), zoo.Affine(1.0))
    model[1].kernel_size = None  # torchinfo refuses it while it registers its hooks
    assert tree_of(model)["1"].calls == 1


@pytest.mark.parametrize("refused", [False, True], ids=["counted", "torchinfo refuses"])
def test_hooks_that_a_model_registers_in_its_first_pass_stay(refused: bool) -> None:
    model = zoo.HooksItself()
    if refused:
        model.head.kernel_size = None
    tree = introspect(model, VECTOR)
    assert tree.error is None
    assert len(model(VECTOR).hidden_states) == 2
    assert {key: len(found) for key, found in zoo.hooks_of(model).items() if found} == {
        ("body.0", "_forward_hooks"): 1,
        ("body.1", "_forward_hooks"): 1,
        ("body.1", "_forward_pre_hooks"): 1,
    }


def test_hooks_of_an_earlier_failure_of_torchinfo_are_not_ours() -> None:
    model = nn.Sequential(nn.Linear(8, 4), zoo.Affine(1.0))
    model[1].kernel_size = None
    with pytest.raises(TypeError):
        torchinfo.summary(model, input_data=VECTOR)
    left = zoo.hooks_of(model)
    assert any(left.values())
    introspect(model, VECTOR)
    assert zoo.hooks_of(model) == left


def test_what_a_model_makes_of_train_and_eval_does_not_happen() -> None:
    """As in adapters that add themselves to the weights in evaluation mode."""
    model = zoo.MergesInEval()
    before = model.lin.weight.clone()
    tree_of(model)
    assert not model.merged
    assert torch.equal(model.lin.weight, before)


def test_the_random_states_of_python_and_numpy_stay() -> None:
    draw = np.random.rand
    model = nn.Sequential(zoo.Returns(lambda x: x * random.random() * draw()))
    expected = []
    for look in (lambda: None, lambda: introspect(model, VECTOR)):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        look()
        expected.append((random.random(), draw()))
    assert expected[0] == expected[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_models_say_so() -> None:
    scripted = torch.jit.script(zoo.mlp())
    tree = introspect(scripted, VECTOR)
    assert "scripted" in tree.error
    assert len(tree) == 5
    assert "\n" not in tree.error
    inside = nn.Sequential(torch.jit.script(nn.Linear(8, 4)), nn.ReLU())
    assert introspect(inside, VECTOR)["1"].calls == 1


def test_wrapped_models_are_looked_into() -> None:
    inner = zoo.mlp()
    names = [n.name for n in introspect(inner, VECTOR)]
    assert [n.name for n in introspect(nn.DataParallel(inner), VECTOR)] == names
    compiled = torch.compile(inner, backend="eager")
    tree = introspect(compiled, VECTOR)
    assert [n.name for n in tree] == names
    assert tree["0"].calls == 1


def test_compiled_in_place_and_compiled_children() -> None:
    model = zoo.mlp()
    model.compile(backend="eager")
    impl = model._compiled_call_impl
    assert tree_of(model)["0"].calls == 1
    assert model._compiled_call_impl is impl
    parent = nn.Sequential(torch.compile(zoo.mlp(), backend="eager"), nn.ReLU())
    assert tree_of(parent)["0.2"].calls == 1


def test_random_layers_do_not_move_the_random_state() -> None:
    tree_of(nn.Sequential(zoo.Returns(lambda x: x + torch.randn_like(x)), nn.Linear(8, 2)))


def test_lazy_parameters_are_counted_once_they_exist() -> None:
    model = nn.Sequential(nn.LazyLinear(5), nn.ReLU())
    assert introspect(model)["0"].n_params == 0
    assert introspect(model, VECTOR)["0"].n_params == 45


def test_half_precision_and_double() -> None:
    for dtype in (torch.bfloat16, torch.float64):
        assert tree_of(zoo.mlp().to(dtype), VECTOR.to(dtype)).ran


def test_the_model_is_not_kept_alive() -> None:
    model = zoo.mlp()
    alive = weakref.ref(model)
    tree = introspect(model, VECTOR)
    del model
    gc.collect()
    assert alive() is None
    assert tree["0"].calls == 1


def least_time(work: Callable[[], object]) -> float:
    """Of three runs the least of this process's own time: what else runs makes all longer."""
    found = []
    for _ in range(3):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def test_resnet50_takes_little_more_than_four_passes_on_one_sample() -> None:
    """Under a second on an ordinary machine; here beside passes, which slow down with it."""
    model, batch = zoo.ResNet50().eval(), torch.randn(64, 3, 224, 224)
    with torch.no_grad():
        passes = least_time(lambda: [model(batch[:1]) for _ in range(4)])
    assert least_time(lambda: introspect(model, batch)) < 3 * passes
    assert introspect(model, batch)["layer3.2.conv2"].output_shape == (256, 14, 14)


def test_two_thousand_modules_and_deep_nests_take_as_long_as_their_number() -> None:
    few = least_time(lambda: introspect(zoo.WideFlat(200), torch.randn(4, 4)))
    many = least_time(lambda: introspect(zoo.WideFlat(2000), torch.randn(4, 4)))
    assert many < 40 * few
    assert sum(n.calls for n in introspect(zoo.WideFlat(2000), torch.randn(4, 4))) == 2000
    assert introspect(zoo.Deep(100), VECTOR)[".".join(["nest", *["0"] * 100])].calls == 1


@pytest.mark.parametrize(
    ("make", "batch"),
    [
        (zoo.mlp, VECTOR),
        (zoo.InPlaceChain, VECTOR),
        (zoo.CalledTwice, VECTOR),
        (zoo.SharedModule, VECTOR),
        (zoo.Nested, VECTOR),
        (zoo.resnet18, IMAGE),
        (zoo.encoder, SEQUENCE),
        (zoo.ModelOutputOut, VECTOR),
    ],
)
def test_distinct_outputs_are_the_rows_of_a_run_of_everything(make, batch) -> None:
    model = make()
    distinct = introspect(model, batch).distinct
    result = compare({"m": model}, [batch], device="cpu", progress=False)
    assert distinct == len(result.layers("m"))


def test_a_model_that_did_not_run_has_no_number_of_outputs() -> None:
    assert introspect(zoo.mlp()).distinct is None
