import itertools
import json

import numpy as np
import pytest

from evaluate.metrics import score

CLASSES = ["apple", "banana", "orange"]


def one_hot(names, classes=CLASSES):
    return np.array([[float(name == c) for c in classes] for name in names])


def area_by_counting_pairs(positive, scores):
    pairs = list(itertools.product(scores[positive], scores[~positive]))
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def test_scores_of_a_small_set_match_fractions_worked_out_by_hand():
    truth = ["apple"] * 3 + ["banana"] * 2 + ["orange"]
    guess = ["apple", "apple", "banana", "banana", "orange", "orange"]
    result = score(truth, one_hot(guess), CLASSES)
    assert result["confusion"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert result["accuracy"] == pytest.approx(4 / 6)
    assert result["precision"] == pytest.approx((3 * 1 + 2 * (1 / 2) + 1 * (1 / 2)) / 6)
    assert result["recall"] == pytest.approx(4 / 6)
    f1 = {"apple": 4 / 5, "banana": 1 / 2, "orange": 2 / 3}
    assert result["f1"] == pytest.approx((3 * f1["apple"] + 2 * f1["banana"] + f1["orange"]) / 6)
    assert result["macro"]["f1"] == pytest.approx(sum(f1.values()) / 3)
    assert result["macro"]["recall"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert {name: row["f1"] for name, row in result["per_class"].items()} == pytest.approx(f1)


def test_roc_auc_is_the_share_of_rightly_ordered_pairs_weighted_by_support():
    rng = np.random.default_rng(3)
    truth = np.array(CLASSES)[rng.integers(3, size=40)]
    probabilities = rng.dirichlet([1, 1, 1], size=40).round(1)
    result = score(truth.tolist(), probabilities, CLASSES)
    areas = [area_by_counting_pairs(truth == name, probabilities[:, k]) for k, name in enumerate(CLASSES)]
    support = [(truth == name).sum() for name in CLASSES]
    assert result["roc_auc"] == pytest.approx(np.dot(areas, support) / 40)
    assert result["macro"]["roc_auc"] == pytest.approx(sum(areas) / 3)
    assert result["roc_auc_classes"] == CLASSES


def test_class_absent_from_the_truth_is_undefined_and_left_out_of_the_averages():
    truth = ["apple", "apple", "banana", "banana"]
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.1, 0.7, 0.2]])
    result = score(truth, probabilities, CLASSES)
    undefined = dict.fromkeys(("precision", "recall", "f1", "roc_auc"))
    assert result["per_class"]["orange"] == {**undefined, "support": 0}
    assert result["roc_auc_classes"] == ["apple", "banana"]
    assert result["roc_auc"] == pytest.approx(1.0)
    assert result["macro"]["recall"] == pytest.approx((1 / 2 + 1) / 2)
    json.dumps(result, allow_nan=False)


def test_class_never_predicted_has_no_precision_and_counts_as_zero_in_the_average():
    result = score(["apple", "banana"], one_hot(["apple", "apple"], CLASSES[:2]), CLASSES[:2])
    assert result["per_class"]["banana"]["precision"] is None
    assert result["per_class"]["banana"]["recall"] == 0
    assert result["precision"] == pytest.approx((1 / 2 + 0) / 2)


def test_truth_of_one_class_alone_has_no_roc_auc():
    result = score(["apple", "apple"], one_hot(["apple", "banana"]), CLASSES)
    assert result["roc_auc"] is None
    assert result["macro"]["roc_auc"] is None
    assert result["roc_auc_classes"] == []
    assert result["accuracy"] == 0.5
    json.dumps(result, allow_nan=False)


def test_two_classes_with_two_columns_have_one_roc_auc():
    truth = np.array(["cat", "dog", "dog", "cat"])
    positive = np.array([0.4, 0.9, 0.3, 0.1])
    result = score(truth.tolist(), np.stack([1 - positive, positive], axis=1), ["cat", "dog"])
    assert result["roc_auc"] == pytest.approx(area_by_counting_pairs(truth == "dog", positive))


def test_keys_are_those_of_a_record():
    assert set(score(["apple"], one_hot(["apple"]), CLASSES)) == {
        "accuracy",
        "precision",
        "recall",
        "f1",
        "roc_auc",
        "roc_auc_classes",
        "macro",
        "per_class",
        "confusion",
        "nll",
        "ece",
    }


@pytest.mark.parametrize(
    ("truth", "probabilities", "message"),
    [
        ([], np.zeros((0, 3)), "no images"),
        (["apple"], np.zeros((1, 2)), "shape"),
        (["plum"], np.ones((1, 3)), "plum"),
        (["apple"], np.array([[0.5, np.nan, 0.5]]), "finite"),
    ],
)
def test_input_that_cannot_be_scored_is_refused(truth, probabilities, message):
    with pytest.raises(ValueError, match=message):
        score(truth, probabilities, CLASSES)
