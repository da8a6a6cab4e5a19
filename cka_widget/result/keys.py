"""How a row, a column and a cell are named."""

from typing import NamedTuple


class LayerKey(NamedTuple):
    """One layer of one model: `LayerKey("ResNet-8", "layer1.0.conv1")`."""

    model: str
    layer: str


class Cell(NamedTuple):
    """One cell of the heatmap, by names."""

    row: LayerKey
    col: LayerKey
