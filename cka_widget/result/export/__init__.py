"""A result taken away: as a static picture, and as a page.

`plotting` draws with matplotlib (`brackets` gather layers under their module); `page` writes one
HTML file, of the numbers and words in `page_data`. Safetensors are written by `result.storage`.

Imports `result` and `names`; matplotlib is imported by `plotting` alone.
"""
