"""What lies behind one cell of the heatmap, as arrays.

`cell_scores` collects it, `cell_measures` does so under every measure; `mds` places particles by
their scores; `cell_frames` is what the result's own methods give. What draws these numbers is
elsewhere: the drill-down, and the page in TypeScript.

Imports numpy, and of the package `result` alone.
"""
