"""What did these two networks learn, and is it the same thing?

Public names load on first use, so that importing the package costs next to nothing and a saved
result opens where torch is not installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "CKAExplorer": "widgets.explorer",
    "CKAResult": "engine.result",
    "Cell": "engine.keys",
    "CompareError": "engine.errors",
    "Heatmap": "widgets.heatmap",
    "LayerKey": "engine.keys",
    "LayerPicker": "widgets.picker",
    "LayerTree": "introspection",
    "MinibatchCKA": "engine.functional",
    "Snapshot": "engine.compare",
    "StackedParticles": "engine.particles",
    "cka": "engine.functional",
    "compare": "engine.compare",
    "concat": "engine.combine",
    "introspect": "introspection",
    "iter_compare": "engine.compare",
    "load": "engine.storage",
}

__all__ = [
    "CKAExplorer",
    "CKAResult",
    "Cell",
    "CompareError",
    "Heatmap",
    "LayerKey",
    "LayerPicker",
    "LayerTree",
    "MinibatchCKA",
    "Snapshot",
    "StackedParticles",
    "__version__",
    "cka",
    "compare",
    "concat",
    "introspect",
    "iter_compare",
    "load",
]

if TYPE_CHECKING:
    from cka_widget.engine.combine import concat
    from cka_widget.engine.compare import Snapshot, compare, iter_compare
    from cka_widget.engine.errors import CompareError
    from cka_widget.engine.functional import MinibatchCKA, cka
    from cka_widget.engine.keys import Cell, LayerKey
    from cka_widget.engine.particles import StackedParticles
    from cka_widget.engine.result import CKAResult
    from cka_widget.engine.storage import load
    from cka_widget.introspection import LayerTree, introspect
    from cka_widget.widgets.explorer import CKAExplorer
    from cka_widget.widgets.heatmap import Heatmap
    from cka_widget.widgets.picker import LayerPicker


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
