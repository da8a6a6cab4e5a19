"""A result of made-up scores, for views that ask one for numbers."""

import numpy as np
import pandas as pd

from cka_widget.result.keys import Cell, LayerKey
from cka_widget.result.measure_facts import MeasureFacts

ENSEMBLES = {"wide": 4, "deep <b>": 5}


class FakeResult:
    """Layers x particles of scores, as a CKAResult answers for them."""

    def __init__(self, sizes, layers=("conv", "block", "fc"), odd=None, seed=0):
        self.sizes, self.names, self.warnings, self.samples = sizes, list(layers), (), 640
        rng = np.random.default_rng(seed)
        self.keys = [(m, p, l) for m, n in sizes.items() for p in range(n) for l in layers]
        depth = np.array([self.names.index(l) for _, _, l in self.keys])
        base = (
            0.85
            - 0.15 * np.abs(depth[:, None] - depth)
            + 0.01 * rng.standard_normal((len(depth),) * 2)
        )
        for i, (m, p, _) in enumerate(self.keys):
            if odd == (m, p):
                base[i, :] = base[:, i] = 0.2
        self.table = (base + base.T) / 2
        np.fill_diagonal(self.table, 1.0)

        self.measure, self.others = MeasureFacts(), ()

    measures = property(
        lambda self: (self.measure.name, *(one.measure.name for one in self.others))
    )

    def of(self, name):
        """The same result, or one of those that `others` was given, as they are."""
        return next(one for one in (self, *self.others) if one.measure.name == name)

    models = property(lambda self: tuple(self.sizes))

    def layers(self, model):
        return self.names

    def n_particles(self, model):
        return self.sizes[model]

    def particles(self, a, b, *, row, col):
        def pick(model, layer):
            return [i for i, (m, _, l) in enumerate(self.keys) if (m, l) == (model, layer)]

        return pd.DataFrame(self.table[np.ix_(pick(a, row), pick(b, col))])

    def particles_along(self, a, b, *, row):
        return np.stack([self.particles(a, b, row=row, col=col) for col in self.names], -1)

    def particles_stderr(self, a, b, *, row, col):
        return self.particles(a, b, row=row, col=col) * 0 + 0.01

    def _over(self, a, b, reduce):
        out = np.zeros((len(self.names),) * 2)
        for r, row in enumerate(self.names):
            for c, col in enumerate(self.names):
                block = self.particles(a, b, row=row, col=col).to_numpy()
                own = a == b and len(block) > 1
                keep = ~np.eye(len(block), dtype=bool) if own else np.ones_like(block, bool)
                out[r, c] = reduce(block[keep])
        return pd.DataFrame(out, self.names, self.names)

    def matrix(self, a, b):
        return self._over(a, b, np.mean)

    def spread(self, a, b):
        return self._over(a, b, np.std)

    def stderr(self, a, b):
        return self.matrix(a, b) * 0 + 0.0213

    def null(self, a, b):
        return self.matrix(a, b) * 0 + 0.0123

    def above_chance(self, a, b):
        return self.matrix(a, b) > 0.5

    def why(self, a, b, row, col):
        return f"{a} {row}: never ran"


def cell(a, row, b, col):
    return Cell(LayerKey(a, row), LayerKey(b, col))
