"""The widgets around and in the explorer, one a file.

`heatmap` and `picker` have TypeScript of the same name in `js/src/`, as `kernel_pulse` has; the
others are of ipywidgets. None imports another: `explorer` joins them.

Imports `look`, `run`, `comparison` and `notebook`, and the result.
"""
