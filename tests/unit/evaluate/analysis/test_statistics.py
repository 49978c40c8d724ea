"""Rows of arms: what is averaged, what is compared with what, and what is never mixed."""

import statistics as stdlib

import numpy as np
import pytest
from runs import run, sweep, wrong_at
from scipy.stats import binomtest
from sklearn.metrics import log_loss

from evaluate.analysis.intervals import difference_interval, wilson
from evaluate.analysis.predictions import correctness
from evaluate.analysis.summary import change, summarise


def test_rows_hold_means_over_seeds_and_the_difference_to_real_only():
    records = [
        run(wrong_at(10), seed=0),
        run(wrong_at(10, 0), seed=1),
        run(wrong_at(10, 0, 1, 2), ratio=0.3, seed=0),
        run(wrong_at(10, 0, 1), ratio=0.3, seed=1),
    ]
    real, mixed = summarise(reversed(records))
    assert (real.arm.ratio, real.runs, real.n_test, real.change) == (1.0, 2, 10, None)
    assert real.weighted["accuracy"] == pytest.approx((0.95, stdlib.stdev([1.0, 0.9])))
    assert (mixed.n_real, mixed.n_synthetic) == (60, 140)
    assert mixed.change.points == pytest.approx(-20)
    low, high = mixed.change.interval
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
    assert summarise(real + mixed)[1].change.p == pytest.approx(binomtest(6, 6).pvalue)


def test_designs_and_shots_are_never_mixed():
    records = [
        run(wrong_at(8)),
        run(wrong_at(8, 0), design="augment", ratio=0.5),
        run(wrong_at(8, 0, 1), shots=4),
        run(wrong_at(8, 0, 1, 2), shots=4, ratio=0.5),
    ]
    rows = {(row.arm.design, row.arm.shots, row.arm.ratio): row for row in summarise(records)}
    assert list(rows) == [
        ("substitute", None, 1.0),
        ("augment", None, 0.5),
        ("augment", 4, 1.0),
        ("augment", 4, 0.5),
    ]
    assert rows["augment", None, 0.5].change is None
    assert rows["augment", 4, 0.5].change.points == pytest.approx(-12.5)


def test_folds_together_cover_every_image():
    folds = [[f"{fold}-{i}.jpg" for i in range(6)] for fold in range(2)]
    records = [
        run(wrong_at(6, *wrong), ratio=ratio, files=files, fold=fold)
        for ratio, wrong in ((1.0, ()), (0.5, (0, 1, 2)))
        for fold, files in enumerate(folds)
    ]
    mixed = summarise(records)[1]
    assert mixed.n_test == 12
    assert mixed.change.p == pytest.approx(binomtest(6, 6).pvalue)


def test_the_folds_of_a_repeat_are_one_replicate():
    records = [
        run(wrong_at(2, *wrong), files=[f"{fold}-a", f"{fold}-b"], arm="fold", fold=fold, repeat=repeat)
        for repeat, fold, wrong in ((0, 0, ()), (0, 1, (1,)), (1, 0, (0,)))
    ]
    found = correctness(records, ["0-a", "0-b", "1-a", "1-b"])
    assert [row.tolist()[:2] for row in found.values()] == [[1, 1], [0, 1]]
    first, second = (row[2:] for row in found.values())
    assert first.tolist() == [1, 0]
    assert np.isnan(second).all()


def test_runs_are_paired_by_the_seeds_of_classifier_and_subset():
    def pair(subset, wrong, **more):
        real = run(wrong_at(8), subset_seed=subset, **more)
        return [real, run(wrong_at(8, *wrong), subset_seed=subset, ratio=0.5, **more)]

    alone, mixed = summarise([*pair(0, ()), *pair(7, (0, 1))])
    assert (alone.runs, mixed.runs) == (2, 2)
    assert mixed.change.points == pytest.approx(-12.5)


def test_metric_undefined_in_the_runs_stays_undefined():
    rows = summarise([{**run(wrong_at(4)), "roc_auc": None}])
    assert rows[0].weighted["roc_auc"] == (None, None)


def test_controls_are_compared_with_real_images_alone():
    records = [
        run(wrong_at(8)),
        run(wrong_at(8, 0), ratio=0.5),
        run(wrong_at(8, 0, 1), ratio=0.5, arm="oversampled"),
        run(wrong_at(8, 0, 1, 2), ratio=0.5, mixing="weight 0.8"),
        run(wrong_at(8, 0), ratio=1.0, arm="strong"),
        run(wrong_at(8), arm="fold", fold=0),
        run(wrong_at(8, 0, 1, 2, 3), arm="fold", fold=0, ratio=0.5),
    ]
    rows = {(row.arm.kind, row.arm.mixing, row.arm.ratio): row for row in summarise(records)}
    points = {key: row.change.points if row.change else None for key, row in rows.items()}
    assert points == {
        ("ratio", "union", 1.0): None,
        ("ratio", "union", 0.5): pytest.approx(-12.5),
        ("ratio", "weight 0.8", 0.5): pytest.approx(-37.5),
        ("fold", "union", 1.0): None,
        ("fold", "union", 0.5): pytest.approx(-50),
        ("oversampled", "union", 0.5): pytest.approx(-25),
        ("strong", "union", 1.0): pytest.approx(-12.5),
    }


def test_p_is_corrected_for_every_arm_compared():
    records = [run(wrong_at(30))]
    records += [run(wrong_at(30, *range(6)), ratio=0.5), run(wrong_at(30, *range(9)), ratio=0.0)]
    _, half, none = summarise(records)
    assert (half.change.p, none.change.p) == (pytest.approx(2 / 2**6), pytest.approx(2 / 2**9))
    assert (half.change.p_holm, none.change.p_holm) == (pytest.approx(2 / 2**6), pytest.approx(4 / 2**9))


def test_equal_arms_of_a_small_set_are_not_taken_for_equal():
    records = [run(wrong_at(55), ratio=ratio, seed=seed) for ratio in (1.0, 0.5) for seed in range(3)]
    _, mixed = summarise(records)
    assert (mixed.change.points, mixed.change.p, mixed.change.p_mean) == (0, 1, 1)
    # Two images that might have turned, of 57.
    half = 100 * 1.96 * (2 / 57 / 57) ** 0.5
    assert mixed.change.interval == pytest.approx((-half, half), abs=0.01)
    assert mixed.change.within_margin is False
    assert summarise(records, margin=7)[1].change.within_margin


def test_one_seed_establishes_nothing_about_the_margin():
    two = [run(wrong_at(600, *wrong), ratio=ratio) for ratio, wrong in ((1.0, ()), (0.5, (0,)))]
    (mixed,) = [row for row in summarise(two) if row.change]
    assert mixed.change.one_seed and mixed.change.within_margin is None
    assert mixed.change.interval[0] > -2
    (mixed,) = [row for row in summarise([*two, *({**r, "seed": 1} for r in two)]) if row.change]
    assert not mixed.change.one_seed and mixed.change.within_margin is True


def test_the_margin_is_corrected_for_every_arm_compared():
    def arms(ratios):
        wrong = {ratio: [(0, 1, 2), (0, 1), (0,)] if ratio < 1 else [()] * 3 for ratio in ratios}
        return [row.change for row in summarise(sweep(wrong, n=330)) if row.change]

    (alone,) = arms((1.0, 0.5))
    assert 0.0125 < alone.p_worse < 0.025 and alone.within_margin
    pair = arms((1.0, 0.5, 0.3))
    assert [change.p_worse for change in pair] == [alone.p_worse] * 2
    assert [change.p_worse_holm for change in pair] == [pytest.approx(2 * alone.p_worse)] * 2
    assert not any(change.within_margin for change in pair)


def test_a_change_is_of_the_runs_that_have_a_partner():
    real = [run(wrong_at(20, *range(wrong)), seed=seed) for seed, wrong in enumerate((0, 0, 5, 5, 5))]
    mixed = [run(wrong_at(20, 0, 1), ratio=0.3, seed=seed) for seed in (0, 1, 9)]
    found = change(real, mixed)
    assert (found.runs, found.replicates, found.before, found.after) == (2, 2, 1.0, pytest.approx(0.9))
    assert found.points == pytest.approx(-10)
    differences = np.tile(np.where(np.arange(20) < 2, -1.0, 0.0), (2, 1))
    assert found.interval == pytest.approx([100 * end for end in difference_interval(differences)])
    assert change(real, mixed[2:]) is None


def test_an_accuracy_is_less_sure_where_seeds_differ():
    alike, unlike = (
        summarise([run(wrong_at(400, *range(wrong)), seed=seed) for seed, wrong in enumerate(wrongs)])[0]
        for wrongs in ((40, 40, 40), (10, 40, 70))
    )
    assert alike.interval == pytest.approx(wilson(360, 400))
    assert unlike.interval[0] < alike.interval[0] and unlike.interval[1] > alike.interval[1]


def test_calibration_is_a_mean_over_runs():
    records = [run(wrong_at(9, 0), seed=0), run(wrong_at(9), seed=1)]
    (row,) = summarise(records)
    expected = []
    for record in records:
        truth = [p["truth"] for p in record["predictions"]]
        expected.append(log_loss(truth, [list(p["probabilities"].values()) for p in record["predictions"]]))
    assert row.nll.mean == pytest.approx(stdlib.mean(expected))
    assert row.ece.mean == pytest.approx(stdlib.mean(record["ece"] for record in records))
