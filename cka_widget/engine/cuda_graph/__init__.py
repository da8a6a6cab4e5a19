"""`cuda_graph=True`: the passes of a batch, recorded once and replayed for those after it.

`replay` is what a session asks; `alike` says which batches a recording serves, `recordable` what
it could not do again, `recording` is torch's part.

Imports `engine.data`, `models`, `grams` and `errors`; `engine.session` alone imports it.
"""
