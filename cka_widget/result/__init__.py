"""What a run gives, and all that can be read of it.

`result.CKAResult` is the user's face over the `scores`; under them stand the mergeable `sums`, the
`row_index` of layers and particles, facts of measures (`measure_facts`), error bars (`intervals`),
what chance alone gives (`chance`), which particles stand out (`particle_stats`), files (`storage`)
and several runs in one (`combine`).

Imports numpy and pandas, never torch: a saved result opens where torch is not installed.
"""
