import numpy as np
import pytest

from cka_widget.result.cell.mds import angular_distance, classical_mds, similarity_order


def agreeing(rows, cols):
    scores = 0.78 + 0.02 * np.random.default_rng(0).standard_normal((rows, cols))
    if rows == cols:
        scores = (scores + scores.T) / 2
        np.fill_diagonal(scores, 1.0)
    return scores


def test_mds_gives_planar_distances_back():
    points = np.random.default_rng(1).standard_normal((7, 2))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    coords, share = classical_mds(distance)
    again = np.linalg.norm(coords[:, None] - coords[None], axis=-1)
    np.testing.assert_allclose(again, distance, atol=1e-8)
    assert share == pytest.approx(1.0)


def test_mds_leaves_out_who_has_no_distance_and_keeps_its_orientation():
    distance = angular_distance(agreeing(6, 6))
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
