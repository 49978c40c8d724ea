"""The sweep's log: whole lines only, one experiment a folder."""

import resource

import pytest

from evaluate.records import records


def record(seed: int) -> dict:
    return {"design": "substitute", "ratio": 0.3, "shots": None, "seed": seed, "accuracy": None}


def test_what_was_appended_comes_back(tmp_path):
    for seed in (0, 1):
        records.append(tmp_path, record(seed))
    assert records.read(tmp_path) == [record(0), record(1)]


def test_a_record_of_an_older_version_is_a_plain_mixture():
    plain = {"arm": "ratio", "fold": None, "repeat": None, "mixing": "union", "generator_seed": None}
    assert records.key(record(3)) == records.key({**record(3), **plain, "subset_seed": 3})
    for change in ({"arm": "strong"}, {"fold": 0}, {"mixing": "weight 0.8"}, {"subset_seed": 4}):
        assert records.key(record(3)) != records.key({**record(3), **change})


def test_a_run_that_was_trained_again_has_its_later_record(tmp_path):
    for seed, accuracy in ((0, 0.5), (1, 0.5), (0, 0.75)):
        records.append(tmp_path, record(seed) | {"accuracy": accuracy})
    assert [(r["seed"], r["accuracy"]) for r in records.read(tmp_path)] == [(0, 0.75), (1, 0.5)]


def test_older_records_of_mixtures_have_the_total_that_their_experiment_notes(tmp_path):
    records.require_same(tmp_path, {"total": 4400})
    for arm in ("ratio", "strong", "fold"):
        records.append(tmp_path, record(0) | {"arm": arm})
    assert [records.complete(r)["total"] for r in records.read(tmp_path)] == [4400, 0, 0]
    mixture, *_ = records.read(tmp_path)
    assert records.key(mixture) == records.key({**record(0), "total": 4400}) != records.key(record(0))


def test_a_line_cut_off_by_a_crash_is_dropped_and_written_anew(tmp_path):
    records.append(tmp_path, record(0))
    with (tmp_path / records.RECORDS).open("a") as file:
        file.write('{"design": "subst')
    assert records.read(tmp_path) == [record(0)]
    records.append(tmp_path, record(1))
    assert records.read(tmp_path) == [record(0), record(1)]


def test_reading_leaves_a_line_alone_that_another_run_is_still_writing(tmp_path):
    records.append(tmp_path, record(0))
    with (tmp_path / records.RECORDS).open("a") as file:
        file.write('{"design": "subst')
    before = (tmp_path / records.RECORDS).read_bytes()
    records.read(tmp_path)
    assert (tmp_path / records.RECORDS).read_bytes() == before


def test_of_a_line_that_does_not_fit_on_the_disk_nothing_stays(tmp_path, refused):
    records.append(tmp_path, record(0))
    before = (tmp_path / records.RECORDS).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with refused("records.jsonl", "cannot be written", "make room"):
            records.append(tmp_path, record(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / records.RECORDS).read_bytes() == before


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


def test_what_one_run_did_not_use_agrees_with_any_other(tmp_path, refused):
    records.require_same(tmp_path, {"steps": 400, "synthetic": None})
    records.append(tmp_path, record(0))
    records.require_same(tmp_path, {"steps": 400, "synthetic": "a", "model": "cnn"})
    records.require_same(tmp_path, {"steps": 400, "synthetic": None})
    with refused("synthetic a (requested: b)"):
        records.require_same(tmp_path, {"steps": 400, "synthetic": "b"})


def test_another_experiment_in_the_folder_is_refused_with_the_difference(tmp_path, refused):
    records.require_same(tmp_path, {"steps": 400, "model": "cnn"})
    records.append(tmp_path, record(0))
    records.require_same(tmp_path, {"steps": 400, "model": "cnn"})
    with refused("steps 400 (requested: 300)", "another --output"):
        records.require_same(tmp_path, {"steps": 300, "model": "cnn"})
