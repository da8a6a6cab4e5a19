"""What may import what: the engine no widget, the package no torch until it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cka_widget

PACKAGE = Path(cka_widget.__file__).parent
UI = ("ipywidgets", "anywidget", "bqplot", "IPython", "traitlets")
HEAVY = ("torch", "pandas", "numpy", "matplotlib", "tqdm", *UI)

# Who may import whom, by folder or file of the package; siblings of one name are free.
ALLOWED = {
    "__init__": set(),
    "engine": {"text"},
    "layer_tree": set(),
    "counting": set(),
    "watch": {"engine"},
    "introspection": {"engine", "layer_tree", "counting", "watch"},
    "torch_cka": {"engine", "torch_cka_run", "plotting"},
    "text": set(),
    "report": {"engine", "report_data", "text"},
    "report_data": {"engine"},
    "brackets": {"text"},
    "plotting": {"engine", "brackets", "text"},
    "widgets": {
        *("engine", "introspection", "layer_tree", "plotting", "report_data", "text", "__init__")
    },
}
ENGINE = {
    "keys": set(),
    "errors": set(),
    "devices": {"errors"},
    "modes": set(),
    "sums": set(),
    "accelerator": set(),
    "symmetric": {"accelerator"},
    "gram": {"accelerator", "symmetric"},
    "ragged": {"errors"},
    "reductions": set(),
    "sample_axis": {"errors"},
    "notes": set(),
    "features": {"errors", "ragged", "reductions", "sample_axis", "devices"},
    "glimpse": set(),
    "probed": {"errors", "glimpse", "sample_axis"},
    "probe": {
        "batches",
        "errors",
        "features",
        "glimpse",
        "hooks",
        "layers",
        "probed",
        "random_state",
        "rewind",
        "sample_axis",
    },
    "masks": {"batches", "calls"},
    "short_passes": {"batches", "capture", "features", "glimpse", "masks", "probe", "probed"},
    "failures": {"call_words", "errors", "particles"},
    "pieces": {"batches", "blocks", "budget", "devices", "errors", "sample_facts"},
    "random_state": set(),
    "rewind": set(),
    "hooks": set(),
    "layers": {"errors"},
    "batches": set(),
    "calls": {"batches", "labels"},
    "call_words": {"batches", "calls", "errors"},
    "loaders": {"errors"},
    "samples": {"batches", "calls", "errors", "features", "hooks"},
    "labels": {"batches"},
    "drawing": set(),
    "workers": {"errors"},
    "repeats": {"batches", "loaders"},
    "streams": {"batches", "drawing", "errors", "loaders", "repeats", "workers"},
    "groups": {"blocks", "errors"},
    "clusters": {"accelerator", "permutations"},
    "diagnostics": {"labels"},
    "intervals": {"sums"},
    "chance": {"sums"},
    "rows": {"errors", "sums"},
    "measure_facts": {"sums"},
    "scores": {"chance", "intervals", "measure_facts", "rows", "sums"},
    "combine": {"measure_facts", "rows", "scores", "sums"},
    "storage": {"measure_facts", "rows", "scores", "sums"},
    "result": {"combine", "scores", "storage"},
    "distances": set(),
    "gram_blocks": {"accelerator", "distances"},
    "forming": {"accelerator", "care", "gram"},
    "raw": {"accelerator", "blocks", "distances", "forming"},
    "sample_facts": set(),
}
# Methods of the result that forward to what is loaded when they are called.
LAZY = {
    "cka_widget.engine.result imports cka_widget.plotting.plot",
    "cka_widget.engine.result imports cka_widget.report.to_html",
}
VIEWS = ("picker", "heatmap", "drilldown")


def imported_after(statement: str, names: tuple[str, ...]) -> set[str]:
    """Which of the names a fresh interpreter has imported after the statement."""
    code = f"import sys\n{statement}\nprint(*[n for n in {names!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


def test_the_engine_imports_no_widget() -> None:
    modules = [f"cka_widget.engine.{p.stem}" for p in (PACKAGE / "engine").glob("[!_]*.py")]
    assert len(modules) > 10
    statement = "import cka_widget.engine, " + ", ".join(modules)
    assert imported_after(statement, ("torch", "tqdm.auto", *UI)) == {"torch"}


def test_the_explorer_is_on_screen_before_charts_pictures_and_frames_are_loaded() -> None:
    heavy = ("torch", "ipywidgets", "bqplot", "matplotlib", "pandas")
    assert imported_after("import cka_widget.widgets.explorer", heavy) == {"torch", "ipywidgets"}


def test_introspection_imports_no_widget() -> None:
    assert not imported_after("import cka_widget.introspection", UI)


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not imported_after("import cka_widget", HEAVY)


def test_opening_a_saved_result_needs_no_torch() -> None:
    statement = "from cka_widget import load, CKAResult, concat, LayerKey, Cell"
    assert not imported_after(statement, ("torch", *UI))


def test_the_check_can_fail() -> None:
    assert imported_after("import ipywidgets", UI) >= {"ipywidgets", "traitlets"}
    assert imported_after("from cka_widget import Heatmap", UI) >= {"anywidget"}
    assert imported_after("from cka_widget import cka", ("torch",)) == {"torch"}


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


# directions ---------------------------------------------------------------------------------------
def imports_of(source: str, module: str) -> Iterator[str]:
    """Full names of the package's modules that a module imports at run time."""
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


def part_of(name: str) -> str:
    """Folder or file of the package that a full name lies in; names of the root are free."""
    parts = name.split(".")
    inside = len(parts) > 1 and (
        (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").is_file()
    )
    return parts[1] if inside else "__init__"


def wrong_directions(source: str, module: str) -> list[str]:
    """What a module imports against the rules."""
    own, wrong = part_of(module), []
    allowed = ALLOWED.get(own, {"engine", "layer_tree"}) | {own}
    for name in imports_of(source, module):
        target = part_of(name)
        if target not in allowed and not (target == "__init__" and own != "engine"):
            wrong.append(f"{module} imports {name}")
        parts, own_parts = name.split("."), module.split(".")
        rules = ENGINE.get(own_parts[-1]) if own == target == "engine" else None
        if rules is not None and parts[2:3] and parts[2] not in rules | {own_parts[-1]}:
            wrong.append(f"{module} imports {name}")
        if own == target == "widgets" and own_parts[-1] in VIEWS and parts[2:3]:
            siblings = set(VIEWS) - {own_parts[-1]}
            # The drill-down's matrix of particles is a Heatmap.
            if parts[2] in siblings and (own_parts[-1], parts[2]) != ("drilldown", "heatmap"):
                wrong.append(f"{module} imports {name}")
    return wrong


def test_import_directions() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(["cka_widget", *path.relative_to(PACKAGE).with_suffix("").parts])
        found += wrong_directions(path.read_text(encoding="utf-8"), module)
    assert set(found) <= LAZY


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("cka_widget.engine.compare", "from cka_widget.widgets.heatmap import Heatmap"),
        ("cka_widget.engine.compare", "def f():\n    import cka_widget.introspection"),
        ("cka_widget.engine.compare", "from ..widgets import heatmap"),
        ("cka_widget.engine.sums", "from cka_widget.engine.gram import u_centre_"),
        ("cka_widget.introspection", "from cka_widget.widgets.picker import LayerPicker"),
        ("cka_widget.torch_cka", "from cka_widget.widgets import explorer"),
        ("cka_widget.widgets.picker", "from cka_widget.widgets.heatmap import Heatmap"),
        ("cka_widget.widgets.heatmap", "from .drilldown import Drilldown"),
    ],
)
def test_the_direction_check_can_fail(module: str, line: str) -> None:
    assert wrong_directions(line, module)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("cka_widget.engine.compare", "from cka_widget.engine.capture import Capture"),
        ("cka_widget.widgets.explorer", "from cka_widget.widgets.heatmap import Heatmap"),
        (
            "cka_widget.engine.errors",
            "if TYPE_CHECKING:\n    from cka_widget.engine.result import CKAResult",
        ),
    ],
)
def test_the_direction_check_lets_the_right_ones_pass(module: str, line: str) -> None:
    assert not wrong_directions(line, module)
