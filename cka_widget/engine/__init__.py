"""Minibatch CKA of all layers of all particles of all models, in one pass over the data.

Read it from `compare` downwards: it checks its `options` and drains a `session`, which takes a
batch from `data`, calls `models` with it by `calls`, has `outputs` turned into rows of `grams`,
and adds the products of all rows, by `measures`, to the sums of a `result`.

Imports torch, numpy and pandas, and of the package `result` and `names`; never a widget.
"""
