"""Models as forward passes to run.

`particles` says what runs, `layers` which of its modules count; `binding`, `vmap` and
`same_architecture` let one module stand for many; `placement` moves weights, `weight_watch` and
`input_guard` see what changes meanwhile, `failures` says which layer failed.

Imports `engine.calls`, `engine.data`, `engine.restoring`, `errors` and `devices`; `names`.
"""
