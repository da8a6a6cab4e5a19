"""What may import what, folder by folder; and the package no torch until it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import cka_widget

PACKAGE = Path(cka_widget.__file__).parent
UI = ("ipywidgets", "anywidget", "bqplot", "IPython", "traitlets")
HEAVY = ("torch", "pandas", "numpy", "matplotlib", "tqdm", *UI)

# What each room may import beside itself. A room is a folder, or a file beside folders.
WORDS = {"names", "engine/errors", "engine/devices"}
MODELS = {*WORDS, "engine/data", "engine/calls", "engine/restoring", "engine/models"}
OUTPUTS = {*MODELS, "engine/grams", "engine/outputs", "result"}
# What the widgets may know of the engine, beside the seam.
OPTIONS = {*MODELS, "engine/options", "engine/outputs", "introspection", "layer_tree"}
SEAM = {"engine/compare", "engine/errors", "engine/interrupts", "result"}
WIDGETS = {
    *("widgets/look", "widgets/run", "widgets/comparison", "widgets/notebook"),
    *("widgets/elements", "widgets/drilldown"),
}
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "names": set(),
    "result": {"names"},
    "result/cell": {"result"},
    "result/export": {"names", "result"},
    "engine/errors": set(),
    "engine/interrupts": set(),
    "engine/devices": {"names", "engine/errors"},
    "engine/data": WORDS,
    "engine/grams": WORDS,
    "engine/measures": {*WORDS, "engine/grams"},
    "engine/summing": {*WORDS, "engine/grams", "engine/measures", "result"},
    "engine/classes": {*WORDS, "engine/data", "engine/grams", "engine/measures"},
    "engine/sample_facts": set(),
    "engine/calls": {*WORDS, "engine/data"},
    "engine/restoring": set(),
    "engine/models": MODELS,
    "engine/outputs": OUTPUTS,
    "engine/cuda_graph": {*WORDS, "engine/data", "engine/models", "engine/grams"},
    "engine/pieces": {*WORDS, "engine/data", "engine/grams", "engine/sample_facts"},
    "engine/options": {*WORDS, "engine/grams", "engine/measures", "engine/outputs"},
    "engine/functional": {
        *("engine/grams", "engine/measures", "engine/outputs", "engine/summing", "result"),
    },
    "engine/session": {
        *(*OUTPUTS, "engine/interrupts", "engine/measures", "engine/summing", "engine/cuda_graph"),
        *("engine/classes", "engine/pieces", "engine/sample_facts"),
    },
    "engine/compare": {
        *(*OUTPUTS, "engine/interrupts", "engine/measures", "engine/options", "engine/session"),
    },
    "layer_tree": set(),
    "counting": set(),
    "watch": {*MODELS, "engine/outputs"},
    "introspection": {
        *(*MODELS, "engine/interrupts", "engine/outputs", "layer_tree", "counting", "watch"),
    },
    "torch_cka": {"engine/errors", "engine/models", "result", "result/export", "torch_cka_run"},
    "torch_cka_run": {*MODELS, *SEAM},
    "widgets/look": set(),
    "widgets/run": {*SEAM, "engine/data", "engine/models", "widgets/look"},
    "widgets/comparison": {*OPTIONS, "engine/grams", "result", "widgets/look", "widgets/run"},
    "widgets/notebook": {"result/export", "widgets/look"},
    "widgets/elements": {
        *("names", "layer_tree", "result", "result/export"),
        *("widgets/look", "widgets/run", "widgets/comparison", "widgets/notebook"),
    },
    "widgets/drilldown": {"result", "result/cell", "widgets/look", "widgets/elements"},
    "widgets/explorer_views": {*WIDGETS, "layer_tree"},
    "widgets/renamed": set(),
    "widgets/explorer_traits": {
        *WIDGETS,
        *("result", "widgets/explorer_views", "widgets/renamed"),
    },
    "widgets/presenter": {*WIDGETS, "result", "widgets/explorer_views"},
    "widgets/explorer": {
        *(*WIDGETS, *SEAM, "engine/data", "engine/options", "result/export"),
        *("widgets/explorer_traits", "widgets/explorer_views", "widgets/presenter"),
    },
}
# Rooms whose files do not import each other: only the explorer joins its widgets.
APART = {"widgets/elements"}
# Methods of the result that import what they forward to when they are called.
LAZY = {
    ("cka_widget.result.result", "cka_widget.result.cell.cell_frames"),
    ("cka_widget.result.result", "cka_widget.result.export.page"),
    ("cka_widget.result.result", "cka_widget.result.export.plotting"),
}
MOST_FILES = 14


def after(statement: str, names: tuple[str, ...], blocked: tuple[str, ...] = ()) -> set[str]:
    """Which of the names a fresh interpreter, to which some are not installed, has imported."""
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({blocked!r}))\n{statement}\n"
        f"print(*[n for n in {names!r} if sys.modules.get(n)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


def everything(folder: str) -> str:
    """A statement that imports all of a folder, what is in its folders too."""
    modules = (name.removesuffix(".__init__") for name in sources(PACKAGE))
    found = [name for name in modules if name.startswith(f"cka_widget.{folder}.")]
    assert len(found) > 10
    return f"import {', '.join(found)}"


def test_the_engine_imports_no_widget() -> None:
    assert after(everything("engine"), ("torch", "tqdm.auto", *UI)) == {"torch"}


def test_the_result_opens_where_torch_is_not_installed() -> None:
    others = ("torch", "tqdm", "torchinfo", *UI)
    assert after(everything("result"), HEAVY, blocked=others) <= {"numpy", "pandas"}
    statement = "from cka_widget import load, CKAResult, concat, LayerKey, Cell"
    assert after(statement, HEAVY, blocked=("torch", *UI)) <= {"numpy", "pandas"}


def test_the_explorer_is_on_screen_before_charts_pictures_and_frames_are_loaded() -> None:
    heavy = ("torch", "ipywidgets", "bqplot", "matplotlib", "pandas")
    assert after("import cka_widget.widgets.explorer", heavy) == {"torch", "ipywidgets"}


def test_introspection_imports_no_widget() -> None:
    assert not after("import cka_widget.introspection", UI)


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not after("import cka_widget", HEAVY)


def test_the_look_at_what_is_imported_can_fail() -> None:
    assert after("import ipywidgets", UI) >= {"ipywidgets", "traitlets"}
    assert after("from cka_widget import Heatmap", UI) >= {"anywidget"}
    assert after("from cka_widget import cka", ("torch",)) == {"torch"}
    with pytest.raises(subprocess.CalledProcessError):
        after("from cka_widget import cka", (), blocked=("torch",))


def test_every_public_name_exists() -> None:
    for name in cka_widget.__all__:
        assert getattr(cka_widget, name) is not None
    assert set(cka_widget.__all__) <= set(dir(cka_widget))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cka_widget.nothing


def test_no_module_hides_a_public_name() -> None:
    """Importing `package.name` binds the module over a function of that name."""
    modules = {path.stem for path in PACKAGE.iterdir() if path.stem != "__init__"}
    assert modules.isdisjoint(cka_widget.__all__)


# what is imported ---------------------------------------------------------------------------------
Files = Mapping[str, str]  # by full name, as "cka_widget.engine.__init__", a module's source


def sources(package: Path) -> dict[str, str]:
    """Every module of the package."""
    return {
        ".".join(("cka_widget", *path.relative_to(package).with_suffix("").parts)): path.read_text(
            encoding="utf-8"
        )
        for path in sorted(package.rglob("*.py"))
    }


def imported(files: Files, module: str) -> set[str]:
    """Modules of the package that one imports when it is loaded or later, not for types alone."""
    found = set()
    for name in _names(files[module], module):
        parts = name.split(".")
        # What is imported is a module, a name in a module, or a name in a folder's `__init__`.
        for end in (len(parts), len(parts) - 1):
            for one in (".".join(parts[:end]), ".".join([*parts[:end], "__init__"])):
                if one in files and one != module:
                    found.add(one)
                    break
            else:
                continue
            break
        else:
            found.add(name)
    return found


@cache
def _names(source: str, module: str) -> tuple[str, ...]:
    return tuple(_found_names(source, module))


def _found_names(source: str, module: str) -> Iterator[str]:
    tree = ast.parse(source)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "cka_widget")


# rooms --------------------------------------------------------------------------------------------
def room_of(module: str) -> str | None:
    """The room that a module is, or is in; None where there is none."""
    parts = module.split(".")[1:]
    if parts[-1] == "__init__" and len(parts) > 1:
        return "/".join(parts[:-1])
    for room in ("/".join(parts), "/".join(parts[:-1])):
        if room in ALLOWED:
            return room
    return None


def unknown(files: Files) -> list[str]:
    """Modules that are in no room."""
    houses = {"/".join(room.split("/")[:-1]) for room in ALLOWED}
    return [name for name in files if room_of(name) not in {*ALLOWED, *houses}]


def wrong_arrows(files: Files) -> list[str]:
    """Imports against the rules."""
    wrong = []
    for module in files:
        own = room_of(module)
        for name in sorted(imported(files, module)):
            target = room_of(name)
            free = target == "__init__" and own in ALLOWED  # the version, and public names
            if target == own:
                right = own not in APART
            else:
                right = free or target in ALLOWED.get(str(own), ())
            if not right and (module, name) not in LAZY:
                wrong.append(f"{module} imports {name}")
    return wrong


def circle(files: Files) -> list[str]:
    """Modules that import each other in a circle, if any; the named forwards do not count."""
    graph = {
        module: {name for name in imported(files, module) if (module, name) not in LAZY}
        for module in files
    }
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module not in done:
            for name in sorted(graph.get(module, ())):
                if found := visit(name, [*way, module]):
                    return found
            done.add(module)
        return []

    return next(filter(None, (visit(module, []) for module in graph)), [])


def full_folders(paths: Iterable[str]) -> list[str]:
    """Folders of the package with too many files."""
    numbers = Counter(path.rpartition("/")[0] for path in paths)
    return [folder for folder, number in numbers.items() if number > MOST_FILES]


FILES = sources(PACKAGE)


def test_every_file_is_in_a_room() -> None:
    assert not unknown(FILES)
    assert {room_of(name) for name in FILES} >= set(ALLOWED), "a room of the table is empty"


def test_imports_go_down() -> None:
    assert not wrong_arrows(FILES)


def test_no_file_imports_itself_by_way_of_others() -> None:
    assert not circle(FILES)


def test_every_exception_is_needed() -> None:
    assert all(name in imported(FILES, module) for module, name in LAZY)


def test_a_room_says_what_is_in_it_and_imports_nothing() -> None:
    for name, source in FILES.items():
        if name.endswith(".__init__") and name != "cka_widget.__init__":
            assert len((ast.get_docstring(ast.parse(source)) or "").splitlines()) >= 5, name
            assert not imported(FILES, name), name


def test_no_folder_is_full() -> None:
    kinds = (".py", ".css", ".md")
    paths = [path for path in PACKAGE.rglob("*.*") if path.suffix in kinds]
    found = [str(path.relative_to(PACKAGE)) for path in paths if path.parent.name != "static"]
    assert len(found) > 100
    assert not full_folders(found)


# that the rules can fail --------------------------------------------------------------------------
def with_one(module: str, source: str) -> dict[str, str]:
    """The package with one more module, or with another one in a module's place."""
    return {**FILES, f"cka_widget.{module}": source}


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("result.new", "from cka_widget.engine.errors import CompareError"),
        ("result.new", "def f():\n    import cka_widget.result.export.page"),
        ("result.cell.new", "from cka_widget.result.export import page_data"),
        ("engine.errors", "from cka_widget.engine.data import batches"),
        ("engine.data.new", "from cka_widget.engine.models.layers import Layers"),
        ("engine.data.new", "from cka_widget.engine.grams.gram import scaled"),
        ("engine.grams.new", "from cka_widget.engine.measures import pairs"),
        ("engine.grams.new", "from ..measures.pairs import hsics"),
        ("engine.grams.new", "from cka_widget.engine.session import Session"),
        ("engine.measures.new", "from cka_widget.engine.outputs.features import features"),
        ("engine.outputs.new", "from cka_widget.engine.cuda_graph.replay import Replay"),
        ("engine.session", "from cka_widget.engine.compare import compare"),
        ("engine.compare", "from cka_widget.engine.cuda_graph.replay import Replay"),
        ("engine.compare", "from cka_widget.widgets.elements.heatmap import Heatmap"),
        ("engine.compare", "def f():\n    import cka_widget.introspection"),
        ("engine.compare", "from ..widgets import explorer"),
        ("introspection", "from cka_widget.widgets.elements.picker import LayerPicker"),
        ("torch_cka", "from cka_widget.widgets import explorer"),
        ("widgets.run.new", "from cka_widget.widgets.comparison.axes import Axis"),
        ("widgets.elements.new", "from cka_widget.widgets.elements.heatmap import Heatmap"),
        ("widgets.elements.picker", "from .heatmap import Heatmap"),
        ("widgets.elements.new", "from cka_widget.widgets.drilldown.drilldown import DrillDown"),
        ("widgets.drilldown.new", "from cka_widget.widgets import explorer"),
        ("engine.data.new", "from cka_widget.engine.nowhere import something"),
    ],
)
def test_an_arrow_that_runs_up_is_seen(module: str, line: str) -> None:
    assert wrong_arrows(with_one(module, line))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("result.new", "from cka_widget import __version__"),
        ("result.new", "from cka_widget.result.sums import HsicSums"),
        ("engine.compare", "from cka_widget.engine.outputs.capture import Capture"),
        ("widgets.explorer", "from cka_widget.widgets.elements.heatmap import Heatmap"),
        (
            "engine.errors",
            "if TYPE_CHECKING:\n    from cka_widget.result.result import CKAResult",
        ),
    ],
)
def test_an_arrow_that_runs_down_is_let_pass(module: str, line: str) -> None:
    assert not wrong_arrows(with_one(module, line))


@pytest.mark.parametrize(
    "module", ["new", "engine.new", "widgets.new", "engine.newer.new", "newest.__init__"]
)
def test_a_file_in_no_room_is_seen(module: str) -> None:
    assert unknown(with_one(module, "")) == [f"cka_widget.{module}"]


@pytest.mark.parametrize(
    "line",
    [
        "from cka_widget.engine.grams.stack import GramStack",
        "def later():\n    from cka_widget.engine.grams import stack",
        "def later():\n    from . import stack",
    ],
)
def test_a_circle_is_seen(line: str) -> None:
    """The stack imports the Grams, so the Grams must not import the stack."""
    found = circle(with_one("engine.grams.gram", line))
    assert {name.rpartition(".")[2] for name in found} == {"forming", "gram", "stack"}


def test_a_full_folder_is_seen() -> None:
    names = [f"engine/grams/file_{number}.py" for number in range(MOST_FILES)]
    assert not full_folders(names)
    assert full_folders([*names, "engine/grams/README.md"]) == ["engine/grams"]
