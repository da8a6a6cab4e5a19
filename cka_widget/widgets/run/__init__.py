"""Runs in a thread, and what they have given so far.

`runner` drains the engine's snapshots, `throttle` keeps the newest, `torch_settings` go along;
`run_history` keeps what every run gave, `fingerprint` tells whether weights have changed,
`more_data` goes on with a result.

Imports `look`, the engine and the result; no other widget.
"""
