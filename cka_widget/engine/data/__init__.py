"""What the loader gives, before a model sees it.

`loaders` says what gives batches and `streams` draws them, in `workers` and a thread (`drawing`);
`batches` are nests of tensors; `class_labels`, `repeats` and `data_warnings` tell what is found
in them; `prefetch` brings them to the device.

Knows no model and no Gram. Imports `engine.errors`, `engine.devices` and `names`.
"""
