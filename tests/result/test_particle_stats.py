"""Which particles are called odd. tests/particle_cases.json has single matrices, here are rates."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from shipped import script

from cka_widget.result.particle_stats import judge, odd_ones_out, pair_mask

DRAWS = 300


@pytest.fixture(scope="module")
def simulation():
    """The shipped simulation, of which a short form runs here."""
    return script("benchmarks/odd_particle.py")


def line(simulation, start):
    (found,) = (line for line in simulation.LINES if line.name.startswith(start))
    return found


@pytest.mark.parametrize("size", [3, 4, 5, 8, 16, 32])
@pytest.mark.parametrize(
    "start",
    [
        *("shared", "quality", "its root", "errors", "two modes", "a mode of two"),
        *("two ensembles, quality", "two ensembles, two modes"),
    ],
)
def test_particles_of_one_kind_are_not_named(simulation, start, size):
    population = line(simulation, start)
    if size < population.least:
        pytest.skip("two modes of two need four particles")
    # Of 300 draws of a rule that keeps its 5% at least so many alarms come once in 10,000 times.
    most = stats.binom.isf(1e-4, DRAWS, 0.05)
    assert simulation.rate(population, size, DRAWS, seed=1) * DRAWS <= most


@pytest.mark.parametrize("size", [4, 5, 8, 16, 32])
@pytest.mark.parametrize("start", ["**found:** .3", "**found:** the same"])
def test_the_odd_one_is_found_alone(simulation, start, size):
    least = stats.binom.ppf(1e-4, DRAWS, 0.9)
    assert simulation.rate(line(simulation, start), size, DRAWS, seed=1) * DRAWS >= least


@pytest.mark.slow
@pytest.mark.parametrize("width", [6, 16])
def test_digits_networks(simulation, width):
    for size in (3, 5, 8):
        rate = simulation.rate(line(simulation, f"digits networks {width}"), size, DRAWS)
        assert rate * DRAWS <= stats.binom.isf(1e-4, DRAWS, 0.05)
    shuffled = simulation.Line("", simulation.odd_digits(16, "shuffled", "3"), odd=True)
    assert simulation.rate(shuffled, 6, DRAWS) > 0.9


def test_a_rule_that_always_alarms_would_be_seen(simulation, monkeypatch):
    monkeypatch.setattr("cka_widget.result.particle_stats.ALPHA", 1e9)
    for start in ("quality", "its root"):
        assert simulation.rate(line(simulation, start), 4, 100) > 0.15


@pytest.mark.parametrize("size", [3, 4, 6, 9])
def test_the_level_is_that_of_an_exponential_tail(size, monkeypatch):
    """Of qualities whose logarithms fall off so, 5% name somebody, were every gap worth a word."""
    monkeypatch.setattr("cka_widget.result.particle_stats.MIN_GAP", 0)
    monkeypatch.setattr("cka_widget.result.particle_stats.FLOOR", 1e-300)
    g, draws = np.random.default_rng(size), 3000
    alarms = 0
    for effects in -5 * g.exponential(size=(draws, size)):
        alarms += bool(judge(np.exp(effects[:, None] + effects), same=True).odd)
    wide = 4 * (0.05 * 0.95 / draws) ** 0.5
    # With many, the lowest now and then comes near to the others for its partner's quality.
    assert 0.03 - wide < alarms / draws < 0.05 + wide


@given(st.integers(0, 10_000), st.integers(3, 9), st.booleans())
@settings(max_examples=60, deadline=None)
def test_neither_order_nor_quality_of_partners_matters(seed, count, odd):
    g = np.random.default_rng(seed)
    scores = 0.6 + g.normal(0, 0.01, (count, count + 1))
    scores[1] -= 0.45 * odd
    found = [(one.axis, one.particle) for one in odd_ones_out(scores)]
    assert odd or not found
    assert all(name == ("row", 1) for name in found)
    rows, cols = g.permutation(count), g.permutation(count + 1)
    moved = judge(scores[np.ix_(rows, cols)] * g.uniform(0.9, 1.1, count + 1)[cols]).odd
    assert [rows[one.particle] for one in moved if one.axis == "row"] == [i for _, i in found]
    assert [("row", one.particle) for one in judge(scores.T).odd] == found


def test_an_undefined_pair_does_not_make_its_particle_look_odd():
    """Without its best partner's score a particle has a lower mean, but no lower effect."""
    quality = np.array([1.0, *[0.6] * 5])
    scores = np.outer(quality, quality)
    for i in range(1, 6):
        holed = scores.copy()
        holed[0, i] = holed[i, 0] = np.nan
        assert judge(holed, same=True) == ([], [])


@pytest.mark.parametrize("hole", [(0, 2), (1, 4), (3, 5)])
def test_an_undefined_pair_does_not_hide_the_odd_one(hole):
    scores = 0.8 + 0.01 * np.random.default_rng(0).standard_normal((6, 6))
    scores = (scores + scores.T) / 2
    scores[1] = scores[:, 1] = 0.2
    scores[hole] = scores[hole[::-1]] = np.nan
    assert [one.particle for one in judge(scores, same=True).odd] == [1]


def test_the_gap_has_to_outgrow_the_others_as_the_formula_says():
    def judged(gap):
        effects = np.array([-0.6 - gap, -0.6, -0.55, -0.52, -0.4]) / 2
        return judge(np.exp(effects[:, None] + effects), same=True)

    limit = next(q for q in np.arange(1, 9, 0.001) if prod(1 + q / j for j in (2, 3, 4)) > 20)
    below, above = judged(0.2 * limit * 0.99), judged(0.2 * limit * 1.01)
    assert ([len(below.odd), len(below.unsure)], [len(above.odd), len(above.unsure)]) == (
        [0, 1],
        [1, 0],
    )


def test_what_is_no_number_names_nobody():
    assert judge(np.full((4, 4), np.nan)) == ([], [])
    assert judge(np.full((4, 4), np.nan), same=True) == ([], [])
    assert judge(np.array([[1.0, 0.1], [0.1, 1.0]]), same=True) == ([], [])
    assert judge(np.array([[0.9], [0.1]])) == ([], [])
    scores = np.full((5, 5), 0.8)
    scores[1] = np.nan
    assert judge(scores) == ([], [])


def test_pairs_of_one_ensemble_are_counted_once():
    assert pair_mask((4, 4), True).sum() == 6
    assert pair_mask((4, 5), False).sum() == 20
