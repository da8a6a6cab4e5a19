"""Similarity measures, one a file: how the Grams of a block become a vector.

`measure.Measure` is what they share and what a user subclasses; the `registry` knows them by name.
A new one is its file, its line in the registry and in the package's names, and its line in the
cases of `tests/engine/measures/test_conformance.py`.

Imports `engine.grams` and `names`.
"""
