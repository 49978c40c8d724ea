"""Predictions by columns: what a line of records.jsonl has, and what readers get of it."""

import json

import numpy as np
import pytest
import runs

from evaluate.analysis.analyse import analyse
from evaluate.records import combine, predictions, records
from evaluate.records.predictions import Predictions, rounded
from orchard.errors import UserError

CLASSES = ("a", "b", "c")


def some() -> Predictions:
    shares = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    return Predictions(["x.jpg", "y.jpg"], np.array([1, 2]), shares, CLASSES)


def test_columns_are_the_predictions_one_by_one():
    first = {"file": "x.jpg", "truth": "b", "probabilities": {"a": 0.2, "b": 0.5, "c": 0.3}}
    second = {"file": "y.jpg", "truth": "c", "probabilities": {"a": 0.4, "b": 0.4, "c": 0.2}}
    assert list(some()) == [first, second] and some()[-1] == second
    assert predictions.of([first, second], CLASSES) == some() == predictions.read([first, second], CLASSES)
    assert some().predicted.tolist() == [1, 0]  # the first of equals
    assert some().right.tolist() == [True, False]
    assert predictions.read(json.loads(json.dumps(some().columns())), CLASSES) == some()
    assert list(some()[1:]) == [second]


@pytest.mark.parametrize(
    "change",
    [
        {"files": ["x.jpg"]},
        {"truth": ["b", "d"]},
        {"truth": "bc"},
        {"probabilities": [[0.2, 0.5, 0.3]]},
        {"probabilities": [[0.2, 0.5, 0.3], [0.4, 0.6]]},
        {"probabilities": [[0.2, 0.5, 0.3], [0.4, 0.4, "0.2"]]},
        {"probabilities": [[0.2, 0.5, 0.3], [0.4, 0.4, None]]},
        {"probabilities": [[0.2, 0.5, 0.3], [0.4, 0.4, 1.2]]},
        {"files": [], "truth": [], "probabilities": []},
    ],
)
def test_columns_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError):
        predictions.read({**some().columns(), **change}, CLASSES)


def test_a_probability_keeps_eight_digits_of_itself_and_of_what_it_lacks_to_one():
    given = np.array([[0.123456789123, 1.23456789123e-12, 0.999999876543219, 1.0, 0.0, 0.5]])
    assert rounded(given).tolist() == [[0.12345679, 1.2345679e-12, 0.99999987654322, 1.0, 0.0, 0.5]]
    some = np.random.default_rng(0).dirichlet(np.full(10, 0.05), size=500)
    least = np.minimum(some, 1 - some)
    there = (least > 1e-7) & ((some > 1e-12) | (some > 0.5))  # floats near 1 have fewer themselves
    assert (np.abs(rounded(some) - some)[there] <= 5.1e-8 * least[there]).all()
    assert ((rounded(some) >= 0) & (rounded(some) <= 1)).all()


def test_lines_of_older_versions_give_the_same_numbers(tmp_path):
    found = runs.sweep({1.0: [[1], [2, 3]], 0.5: [[1, 4], []]})
    found[3]["external"] = {"shelf": {"accuracy": 1.0, "predictions": found[3]["predictions"]}}
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / records.RECORDS).write_text("".join(f"{json.dumps(one)}\n" for one in found))
    (tmp_path / "new").mkdir()
    for one in found:
        records.append(tmp_path / "new", records.complete(one))
    old, new = (combine.read(tmp_path / name, ()) for name in ("old", "new"))
    assert old == new
    assert analyse(old) == analyse(new) == analyse([records.complete(one) for one in found])
    sizes = [(tmp_path / name / records.RECORDS).stat().st_size for name in ("old", "new")]
    assert sizes[1] < 0.9 * sizes[0]


def test_a_damaged_line_is_named_by_its_file(tmp_path):
    record = records.as_line(records.complete(runs.run([True, False])))
    record["predictions"]["truth"][0] = "pear"
    (tmp_path / records.RECORDS).write_text(json.dumps(record) + "\n")
    with pytest.raises(
        UserError, match=r"records\.jsonl: damaged \(a prediction of 'test/0.jpg' is not of its"
    ):
        records.read(tmp_path)
