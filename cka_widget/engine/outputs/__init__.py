"""What modules return, turned into rows of features and of the Gram stack.

`capture` hooks the chosen modules; `features`, `reductions` and `ragged` make a row of each
sample; `samples`, `sample_axis` and passes on few samples (`probe`, `glimpse`, `probed`,
`short_passes`) find where the samples are;
`row_table` and `layer_warnings` say what became of each layer.

Imports `engine.models` and all below it, `engine.grams` and `result`; no measure.
"""
