"""Distances between sets of features, against plain loops, known distributions and published expectations."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from evaluate.gap.feature_metrics import Cloud, discriminator, kid, manifold, measure, squared_discrepancy
from evaluate.gap.measure import each_class


def points(count, shift=0.0, dimensions=4, seed=0):
    return np.random.default_rng(seed).normal(shift, 1, (count, dimensions))


def cloud(features, labels=None):
    return Cloud(features=features, labels=np.zeros(len(features), int) if labels is None else labels)


def test_discrepancy_is_the_mean_over_pairs_of_different_points():
    a, b = points(4, seed=1), points(3, seed=2)

    def kernel(x, y):
        return (sum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3

    within = [[kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j] for s in (a, b)]
    across = [kernel(x, y) for x in a for y in b]
    expected = np.mean(within[0]) + np.mean(within[1]) - 2 * np.mean(across)
    assert squared_discrepancy(a, b) == pytest.approx(expected)


def test_kid_of_one_distribution_is_near_zero_and_grows_with_the_shift():
    real = cloud(points(300, seed=1))
    same, shifted = (kid(real, cloud(points(200, shift, seed=2)), {0: 100}) for shift in (0, 1.0))
    assert abs(same.mean) < 0.1 < shifted.mean


def test_draws_take_as_many_of_each_class_as_there_are_up_to_the_number():
    labels = np.repeat([0, 2], [7, 3])
    drawn = list(cloud(np.arange(10.0)[:, None], labels).draws({0: 5, 2: 5}, times=4))
    for rows in drawn:
        assert set(rows[2][:, 0]) == {7, 8, 9}
        assert len(set(rows[0][:, 0])) == 5
        assert rows[0].max() < 7
    assert len({tuple(rows[0][:, 0]) for rows in drawn}) > 1


def test_manifold_of_points_on_a_line_worked_out_by_hand():
    # Each real ball reaches to the nearest real neighbour: [-1, 1], [0, 2], [1, 5], [0.5, 5.5] for k = 1.
    real, other = np.array([[0.0], [1.0], [3.0]]), np.array([[0.5], [10.0], [10.5]])
    found = manifold(real, other, neighbours=1)
    # 0.5 lies in two of the balls [-1, 1], [0, 2], [1, 5]; 10 and 10.5 in none.
    assert found.precision == pytest.approx(1 / 3)
    assert found.density == pytest.approx(2 / 3)
    assert found.coverage == pytest.approx(2 / 3)
    # The ball of 0.5 reaches 9.5 far and holds every real point.
    assert found.recall == 1.0


def test_density_and_coverage_of_one_distribution_have_their_published_expectations():
    """Naeem et al. 2020, section 3.2: density 1, and coverage 1 - 2^-k as both sets grow."""
    found = [manifold(points(400, seed=2 * i), points(400, seed=2 * i + 1), neighbours=3) for i in range(4)]
    assert np.mean([f.density for f in found]) == pytest.approx(1, abs=0.05)
    assert np.mean([f.coverage for f in found]) == pytest.approx(1 - 0.5**3, abs=0.02)


def test_an_outlier_among_the_real_points_does_not_raise_density():
    real, far = points(100, seed=3), np.full((50, 4), 20.0) + points(50, seed=4)
    outlier = np.concatenate([real, np.full((1, 4), 40.0)])
    found = manifold(outlier, far)
    assert found.precision == 1.0
    assert found.density < 0.3


def test_discriminator_cannot_tell_one_distribution_apart():
    found = discriminator(points(300, seed=5), points(300, seed=6))
    assert found.area == pytest.approx(0.5, abs=0.07)
    assert found.interval[0] < 0.5 < found.interval[1]


def test_discriminator_reaches_what_the_best_one_reaches():
    real, other = points(400, seed=7), points(400, 0.7, seed=8)
    best = roc_auc_score(np.repeat([0, 1], 400), np.concatenate([real, other]).sum(axis=1))
    assert discriminator(real, other).area == pytest.approx(best, abs=0.03)


def test_discriminator_of_a_few_images_is_undefined():
    assert discriminator(points(4), points(50)) is None


def test_measure_keeps_classes_apart():
    labels, real = np.arange(60) % 2, points(60, seed=9)
    other = points(60, seed=10) + 3 * (labels == 1)[:, None]
    found = measure(cloud(other, labels), cloud(real, labels), ("apple", "pear", "plum"), {0: 20, 1: 20})
    assert found.discriminator["apple"].area < 0.75 < found.discriminator["pear"].area
    assert found.discriminator["plum"] is None
    assert (found.images, found.reference, found.each) == (60, 60, {"apple": 20, "pear": 20})


def test_measures_follow_neither_the_scale_of_the_features_nor_the_size_of_the_set():
    real, other = points(200, seed=11), points(200, 0.3, seed=12)
    few = measure(cloud(other[:50]), cloud(real), ("apple",), {0: 50})
    many = measure(cloud(other), cloud(real), ("apple",), {0: 50})
    assert many.manifold.coverage == pytest.approx(few.manifold.coverage, abs=0.06)
    assert many.manifold.coverage < measure(cloud(other), cloud(real), ("apple",), {0: 200}).manifold.coverage
    scaled = measure(cloud(100 * other), cloud(100 * real), ("apple",), {0: 50})
    assert scaled.kid == pytest.approx(many.kid)


def test_another_mixture_of_classes_alone_is_no_distance():
    def mixed(counts, seed):
        labels = np.repeat([0, 1], counts)
        return cloud(points(len(labels), seed=seed) + 6 * labels[:, None], labels)

    same = kid(mixed((80, 20), 13), mixed((50, 50), 14), {0: 20, 1: 20})
    assert abs(same.mean) < 2 * same.sd
    assert kid(cloud(points(9)), cloud(points(9), np.ones(9, int)), {0: 5, 1: 5}) == (None, None)


def test_a_rare_class_does_not_say_how_many_images_of_the_others_are_compared():
    """100, 100 and 2 images of one distribution: what the two whole classes give, and not next to nothing."""
    labels, whole = np.repeat([0, 1, 2], [100, 100, 2]), np.repeat([0, 1], 100)
    real, other = (points(202, seed=seed) + 9 * labels[:, None] for seed in (15, 16))
    counts = [{"apple": 100, "pear": 100, "plum": 2}, {"apple": 300, "pear": 150, "plum": 0}]
    names = ("apple", "pear", "plum")
    each = each_class(counts, names)
    assert each == {0: 100, 1: 100, 2: 2}
    found = measure(cloud(other, labels), cloud(real, labels), names, each)
    plain = measure(cloud(other[:200], whole), cloud(real[:200], whole), names, {0: 100, 1: 100})
    assert found.each == counts[0]
    assert found.manifold.coverage == pytest.approx(plain.manifold.coverage, abs=0.02)
    assert found.manifold.recall == pytest.approx(plain.manifold.recall, abs=0.02)
    assert found.manifold.coverage > 0.8


def test_a_class_that_one_side_lacks_is_drawn_by_what_the_other_has():
    counts = [{"apple": 30, "pear": 1, "plum": 500}, {"apple": 0, "pear": 8, "plum": 900}]
    assert each_class(counts, ("apple", "pear", "plum", "quince")) == {0: 30, 1: 2, 2: 200}
