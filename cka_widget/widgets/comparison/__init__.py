"""What is compared and shown: models, their trees, ticked layers, data.

`comparison` holds it, after a `first_look` that uses nothing up; `cost` is what a run will take,
`axes` are the rows and columns on screen. No widgets.

Imports `look` and `run`, introspection, the engine and the result.
"""
