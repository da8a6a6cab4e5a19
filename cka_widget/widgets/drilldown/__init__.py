"""What the explorer shows of the selected cell.

`drilldown` is its panel, `measure_table` tells the cell under every measure, `charts` are its
figures by bqplot, loaded when they are first needed. Their numbers are of `result.cell`.

Imports `look` and `elements` (its matrix of particles is a heatmap), and the result.
"""
