import math
import statistics as stdlib

import numpy as np
import pytest
from scipy.stats import binomtest

from evaluate.metrics import score
from evaluate.statistics import (
    bootstrap_difference,
    mcnemar_exact,
    mean_and_spread,
    smallest_detectable,
    summarise,
    wilson,
)

CLASSES = ["apple", "banana"]


def run(right, *, ratio=1.0, seed=0, design="substitute", shots=None, files=None, **more):
    """A record whose n-th image is classified rightly or not."""
    truth = [CLASSES[i % 2] for i in range(len(right))]
    files = files or [f"{i}.jpg" for i in range(len(right))]
    sure = [0.9 if r else 0.2 for r in right]
    p = np.array([[s, 1 - s] if t == "apple" else [1 - s, s] for s, t in zip(sure, truth, strict=True)])
    predictions = [
        {"file": f, "truth": t, "probabilities": dict(zip(CLASSES, map(float, q), strict=True))}
        for f, t, q in zip(files, truth, p, strict=True)
    ]
    head = {"design": design, "ratio": ratio, "shots": shots, "seed": seed, "steps": 4, "classes": CLASSES}
    counts = {"n_real": round(20 * ratio), "n_synthetic": round(20 * (1 - ratio))}
    return {**head, **counts, **score(truth, p, CLASSES), "predictions": predictions, **more}


def wrong_at(n, *places):
    return [i not in places for i in range(n)]


def test_wilson_interval_matches_the_closed_form():
    k, n, z = 53, 55, stdlib.NormalDist().inv_cdf(0.975)
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    assert wilson(k, n) == pytest.approx((centre - half, centre + half))


def test_wilson_interval_of_a_perfect_score_has_width_and_stays_within_one():
    low, high = wilson(55, 55)
    assert 0.9 < low < 1.0
    assert high == 1.0


def test_wilson_refuses_a_count_that_is_no_proportion():
    for successes, n in ((0, 0), (6, 5), (-1, 5)):
        with pytest.raises(ValueError, match="successes"):
            wilson(successes, n)


def test_spread_is_the_sample_deviation_and_none_for_one_run():
    values = [0.9, 0.95, 0.7]
    assert mean_and_spread(values) == pytest.approx((stdlib.mean(values), stdlib.stdev(values)))
    assert mean_and_spread([0.9]) == (0.9, None)


def test_undefined_value_makes_the_mean_undefined():
    assert mean_and_spread([0.9, None]) == (None, None)
    assert mean_and_spread([]) == (None, None)


@pytest.mark.parametrize(("only_a", "only_b"), [(6, 0), (5, 0), (7, 2), (1, 1)])
def test_mcnemar_is_a_sign_test_on_the_images_where_they_differ(only_a, only_b):
    a = [True] * only_a + [False] * only_b + [True] * 10 + [False] * 3
    b = [False] * only_a + [True] * only_b + [True] * 10 + [False] * 3
    assert mcnemar_exact(a, b) == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)


def test_classifiers_that_never_differ_have_p_one():
    assert mcnemar_exact([True, False], [True, False]) == 1.0


def test_six_to_nothing_is_the_smallest_difference_55_images_resolve():
    least = smallest_detectable(55)
    assert least.pairs == 6
    assert least.top == pytest.approx(49 / 55)
    assert least.points == pytest.approx(600 / 55)
    assert binomtest(6, 6).pvalue <= 0.05 < binomtest(5, 5).pvalue


def test_five_images_resolve_nothing():
    assert (smallest_detectable(5).points, smallest_detectable(5).top) == (None, None)
    assert smallest_detectable(6).top == 0.0


def test_bootstrap_interval_is_near_the_normal_one_for_many_images():
    rng = np.random.default_rng(1)
    a, b = (rng.random((1, 400)) < 0.7).astype(float), (rng.random((1, 400)) < 0.8).astype(float)
    difference = (b - a)[0]
    half = 1.96 * difference.std(ddof=1) / math.sqrt(400)
    low, high = bootstrap_difference(a, b)
    assert low == pytest.approx(difference.mean() - half, abs=0.012)
    assert high == pytest.approx(difference.mean() + half, abs=0.012)


def test_bootstrap_leaves_out_images_a_run_did_not_test():
    a, b = np.array([[1.0, np.nan], [np.nan, 1.0]]), np.array([[0.0, np.nan], [np.nan, 0.0]])
    assert bootstrap_difference(a, b) == (-1.0, -1.0)
    assert bootstrap_difference(a, a) is None


def test_rows_hold_means_over_seeds_and_the_difference_to_real_only():
    records = [
        run(wrong_at(10), seed=0),
        run(wrong_at(10, 0), seed=1),
        run(wrong_at(10, 0, 1, 2), ratio=0.3, seed=0),
        run(wrong_at(10, 0, 1), ratio=0.3, seed=1),
    ]
    real, mixed = summarise(reversed(records))
    assert (real.ratio, real.runs, real.n_test, real.delta, real.p) == (1.0, 2, 10, None, None)
    assert real.weighted["accuracy"] == pytest.approx((0.95, stdlib.stdev([1.0, 0.9])))
    assert (mixed.n_real, mixed.n_synthetic) == (6, 14)
    assert mixed.delta == pytest.approx(-20)
    low, high = mixed.delta_interval
    assert low < -20 < high
    recalls = [records[i]["macro"]["recall"] for i in (2, 3)]
    assert mixed.macro["recall"].mean == pytest.approx(stdlib.mean(recalls))


def test_interval_counts_images_not_images_times_seeds():
    rows = summarise([run(wrong_at(20, 0, 1), seed=seed) for seed in range(5)])
    assert rows[0].interval == pytest.approx(wilson(18, 20))


def test_p_compares_the_votes_over_seeds():
    real = [run(wrong_at(12), seed=seed) for seed in range(3)]
    # Images 0 to 5 are wrong in two runs of three, image 6 in one alone.
    mixed = [
        run(wrong_at(12, *places), ratio=0.0, seed=seed)
        for seed, places in enumerate([range(6), range(7), ()])
    ]
    assert summarise(real + mixed)[1].p == pytest.approx(binomtest(6, 6).pvalue)


def test_designs_and_shots_are_never_mixed():
    records = [
        run(wrong_at(8)),
        run(wrong_at(8, 0), design="augment", ratio=0.5),
        run(wrong_at(8, 0, 1), shots=4),
        run(wrong_at(8, 0, 1, 2), shots=4, ratio=0.5),
    ]
    rows = {(row.design, row.shots, row.ratio): row for row in summarise(records)}
    assert list(rows) == [
        ("substitute", None, 1.0),
        ("substitute", 4, 1.0),
        ("substitute", 4, 0.5),
        ("augment", None, 0.5),
    ]
    assert rows["augment", None, 0.5].delta is None
    assert rows["substitute", 4, 0.5].delta == pytest.approx(-12.5)


def test_folds_together_cover_every_image():
    folds = [[f"{fold}-{i}.jpg" for i in range(6)] for fold in range(2)]
    records = [
        run(wrong_at(6, *wrong), ratio=ratio, files=files, fold=fold)
        for ratio, wrong in ((1.0, ()), (0.5, (0, 1, 2)))
        for fold, files in enumerate(folds)
    ]
    mixed = summarise(records)[1]
    assert mixed.n_test == 12
    assert mixed.p == pytest.approx(binomtest(6, 6).pvalue)


def test_metric_undefined_in_the_runs_stays_undefined():
    rows = summarise([{**run(wrong_at(4)), "roc_auc": None}])
    assert rows[0].weighted["roc_auc"] == (None, None)
