"""How a batch becomes a call of a model.

`calls` reads what a model's `forward` takes, `call_words` says what was left out or is missing,
`masks` finds the attention masks of a batch and the tokens that they mark.

Imports `engine.data` and `engine.errors`.
"""
