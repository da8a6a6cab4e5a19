"""What a notebook holds of the explorer.

`cell_output` is what a cell's output shows, `static_picture` what stands there without a kernel,
`notebook_cells` which widgets a cell has shown; `widget_lock` keeps threads and the page apart.

Imports `look`, and the result's pictures.
"""
