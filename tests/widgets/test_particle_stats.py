import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cka_widget.widgets.particle_stats import (
    angular_distance,
    classical_mds,
    odd_ones_out,
    pair_mask,
    similarity_order,
)


def agreeing(rows, cols, seed=0, noise=0.02, same=False):
    scores = 0.78 + noise * np.random.default_rng(seed).standard_normal((rows, cols))
    if same:
        scores = (scores + scores.T) / 2
        np.fill_diagonal(scores, 1.0)
    return scores


def test_the_mocks_odd_column_is_named_with_both_means():
    scores = agreeing(4, 5)
    scores[:, 3] = [0.43, 0.41, 0.39, 0.44]
    (odd,) = odd_ones_out(scores)
    assert (odd.axis, odd.particle) == ("col", 3)
    assert odd.score == pytest.approx(0.4175)
    assert odd.others == pytest.approx(np.delete(scores, 3, 1).mean())


@pytest.mark.parametrize("count", [3, 4, 8])
def test_an_odd_member_of_one_ensemble_does_not_hide_in_the_others_means(count):
    scores = agreeing(count, count, same=True)
    scores[1, :] = scores[:, 1] = 0.07
    scores[1, 1] = 1.0
    assert [odd.particle for odd in odd_ones_out(scores, same=True)] == [1]


@given(st.integers(0, 10_000), st.integers(3, 9), st.sampled_from([0.005, 0.02, 0.1, 0.3]))
@settings(max_examples=80, deadline=None)
def test_no_false_alarm_when_all_agree_up_to_noise(seed, count, noise):
    # Noise as large as the alarm's own threshold may look like a fall now and then; less must not.
    if noise <= 0.02:
        assert odd_ones_out(agreeing(count, count, seed, noise, True), same=True) == []
        assert odd_ones_out(agreeing(count, count + 1, seed, noise)) == []


def test_two_clusters_and_two_particles_name_nobody():
    scores = np.full((8, 8), 0.2)
    scores[:4, :4] = scores[4:, 4:] = 0.9
    assert odd_ones_out(scores, same=True) == []
    assert odd_ones_out(np.array([[1.0, 0.1], [0.1, 1.0]]), same=True) == []
    assert odd_ones_out(np.array([[0.9], [0.1]])) == []


def test_a_fall_within_its_error_bar_is_no_alarm():
    scores = agreeing(5, 5, same=True)
    scores[2, :] = scores[:, 2] = 0.6
    assert odd_ones_out(scores, same=True)
    assert odd_ones_out(scores, same=True, stderr=np.full((5, 5), 0.1)) == []


def test_undefined_scores_are_passed_over():
    scores = agreeing(4, 4)
    scores[1] = np.nan
    assert odd_ones_out(scores) == []
    assert odd_ones_out(np.full((4, 4), np.nan)) == []


def test_mds_gives_planar_distances_back():
    points = np.random.default_rng(1).standard_normal((7, 2))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    coords, share = classical_mds(distance)
    again = np.linalg.norm(coords[:, None] - coords[None], axis=-1)
    np.testing.assert_allclose(again, distance, atol=1e-8)
    assert share == pytest.approx(1.0)


def test_mds_leaves_out_who_has_no_distance_and_keeps_its_orientation():
    distance = angular_distance(agreeing(6, 6, same=True))
    broken = distance.copy()
    broken[4] = broken[:, 4] = np.nan
    coords, _ = classical_mds(broken)
    assert np.isnan(coords[4]).all()
    assert np.isfinite(np.delete(coords, 4, 0)).all()
    nearby, _ = classical_mds(distance + 1e-9)
    np.testing.assert_allclose(nearby, classical_mds(distance)[0], atol=1e-4)


def test_mds_of_one_or_identical_particles_is_the_origin():
    assert (classical_mds(np.zeros((1, 1)))[0] == 0).all()
    assert np.abs(classical_mds(np.zeros((4, 4)))[0]).max() < 1e-12


def test_order_puts_clusters_together():
    scores = np.full((6, 6), 0.2)
    groups = [0, 1, 0, 1, 0, 1]
    for i in range(6):
        for j in range(6):
            if groups[i] == groups[j]:
                scores[i, j] = 0.8 + 0.1 * groups[i]
    rows, cols = similarity_order(scores, same=True)
    assert rows == cols
    assert [groups[i] for i in rows] in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])


def test_order_of_a_rectangle_is_a_permutation_and_puts_undefined_last():
    scores = agreeing(4, 6)
    scores[1] = np.nan
    rows, cols = similarity_order(scores)
    assert sorted(rows) == list(range(4))
    assert sorted(cols) == list(range(6))
    assert rows[-1] == 1


def test_pairs_of_one_ensemble_are_counted_once():
    assert pair_mask((4, 4), True).sum() == 6
    assert pair_mask((4, 5), False).sum() == 20
