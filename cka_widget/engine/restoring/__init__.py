"""What a run changes of others' modules, and brings back.

Evaluation mode (`evaluating`), `hooks`, the `random_state`, and what passes on a few samples
leave in a model (`rewind`).

Knows torch's modules alone: imports nothing of the package.
"""
