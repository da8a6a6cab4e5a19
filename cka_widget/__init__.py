"""What did these two networks learn, and is it the same thing?

Public names load on first use, so that importing the package costs next to nothing and a saved
result opens where torch is not installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "WithinClassCKA": "engine.measures.within_class",
    "RSA": "engine.measures.rsa",
    "MutualKNN": "engine.measures.mutual_knn",
    "Measure": "engine.measures.measure",
    "DistanceCorrelation": "engine.measures.distance_correlation",
    "CKA": "engine.measures.cka",
    "CKAExplorer": "widgets.explorer",
    "CKAResult": "result.result",
    "Cell": "result.keys",
    "CompareError": "engine.errors",
    "Heatmap": "widgets.elements.heatmap",
    "LayerKey": "result.keys",
    "LayerPicker": "widgets.elements.picker",
    "LayerTree": "introspection",
    "MinibatchCKA": "engine.functional",
    "Snapshot": "engine.compare",
    "StackedParticles": "engine.models.particles",
    "cka": "engine.functional",
    "compare": "engine.compare",
    "concat": "result.combine",
    "introspect": "introspection",
    "iter_compare": "engine.compare",
    "load": "result.result",
    "register_output": "engine.outputs.output_types",
}

__all__ = [
    "CKA",
    "RSA",
    "CKAExplorer",
    "CKAResult",
    "Cell",
    "CompareError",
    "DistanceCorrelation",
    "Heatmap",
    "LayerKey",
    "LayerPicker",
    "LayerTree",
    "Measure",
    "MinibatchCKA",
    "MutualKNN",
    "Snapshot",
    "StackedParticles",
    "WithinClassCKA",
    "__version__",
    "cka",
    "compare",
    "concat",
    "introspect",
    "iter_compare",
    "load",
    "register_output",
]

if TYPE_CHECKING:
    from cka_widget.engine.compare import Snapshot, compare, iter_compare
    from cka_widget.engine.errors import CompareError
    from cka_widget.engine.functional import MinibatchCKA, cka
    from cka_widget.engine.measures.cka import CKA
    from cka_widget.engine.measures.distance_correlation import DistanceCorrelation
    from cka_widget.engine.measures.measure import Measure
    from cka_widget.engine.measures.mutual_knn import MutualKNN
    from cka_widget.engine.measures.rsa import RSA
    from cka_widget.engine.measures.within_class import WithinClassCKA
    from cka_widget.engine.models.particles import StackedParticles
    from cka_widget.engine.outputs.output_types import register_output
    from cka_widget.introspection import LayerTree, introspect
    from cka_widget.result.combine import concat
    from cka_widget.result.keys import Cell, LayerKey
    from cka_widget.result.result import CKAResult, load
    from cka_widget.widgets.elements.heatmap import Heatmap
    from cka_widget.widgets.elements.picker import LayerPicker
    from cka_widget.widgets.explorer import CKAExplorer


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
