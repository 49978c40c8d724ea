"""The sweep's log: whole lines only, one experiment a folder."""

import pytest

from evaluate import records


def record(seed: int) -> dict:
    return {"design": "substitute", "ratio": 0.3, "shots": None, "seed": seed, "accuracy": None}


def test_what_was_appended_comes_back(tmp_path):
    for seed in (0, 1):
        records.append(tmp_path, record(seed))
    assert records.read(tmp_path) == [record(0), record(1)]
    assert [records.key(r) for r in records.read(tmp_path)] == [
        ("substitute", 0.3, None, 0),
        ("substitute", 0.3, None, 1),
    ]


def test_a_line_cut_off_by_a_crash_is_dropped_and_written_anew(tmp_path):
    records.append(tmp_path, record(0))
    with (tmp_path / records.RECORDS).open("a") as file:
        file.write('{"design": "subst')
    assert records.read(tmp_path) == [record(0)]
    records.append(tmp_path, record(1))
    assert records.read(tmp_path) == [record(0), record(1)]


def test_a_damaged_line_in_the_middle_is_refused(tmp_path, refused):
    (tmp_path / records.RECORDS).write_text('{"design": \n{"a": 1}\n')
    with refused("records.jsonl", "damaged"):
        records.read(tmp_path)


def test_nan_never_reaches_the_file(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        records.append(tmp_path, record(0) | {"accuracy": float("nan")})
    assert records.read(tmp_path) == []


def test_an_experiment_that_finished_no_run_does_not_block_another(tmp_path):
    records.require_same(tmp_path, {"steps": 400})
    records.require_same(tmp_path, {"steps": 300})


def test_another_experiment_in_the_folder_is_refused_with_the_difference(tmp_path, refused):
    records.require_same(tmp_path, {"steps": 400, "model": "cnn"})
    records.append(tmp_path, record(0))
    records.require_same(tmp_path, {"steps": 400, "model": "cnn"})
    with refused("steps 400 (asked: 300)", "another --output"):
        records.require_same(tmp_path, {"steps": 300, "model": "cnn"})
