"""What is added up over a run: inner products of all pairs of rows, measure by measure.

`products` multiplies vectors, the `accumulator` adds them to `running_sums`, by `clusters` where
samples have groups and by `pooling` where models have particles; `permutations` are what chance
gives, `neighbours` asks whether samples depend on each other.

Imports `engine.grams`, `engine.measures` and `result`.
"""
