"""Faults, drawn from a seed, at any moment of a run; and what must hold after each.

`python -m faults` (with `tests` on the path) draws thousands, `make test` a sample of them.
"""
