"""Features in, centred Grams out: how samples are cut into blocks, and Grams formed and kept.

`stack` holds the Grams of a batch; `blocks` and `groups` say which samples share one; `forming`,
`gram`, `self_product`, `accelerator` and `conditioning` form them; `gram_blocks` are what measures
are given, with `distances` and what centring takes (`raw`); `memory` and `allocator` count bytes.

Knows no model and no batch. Imports `engine.errors` and `engine.devices`.
"""
