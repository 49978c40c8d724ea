"""Records of several experiments on one page."""

import json

import pictures
import pytest
from runs import run, sweep, wrong_at

from evaluate.analysis.labels import label
from evaluate.analysis.summary import summarise
from evaluate.config import Evaluate
from evaluate.records import combine, records

PLAIN = {"model": "cnn", "pretrained": "", "augmentation": "plain", "steps": 400, "size": 64}
IDENTITY = PLAIN | {"train": "a1", "test": "b2", "total": 220, "decoding": 2}


@pytest.fixture
def folders(tmp_path):
    for name, more in (("ratios", {}), ("shots", {"shots": 4})):
        (tmp_path / name).mkdir()
        (tmp_path / name / records.EXPERIMENT).write_text(json.dumps(IDENTITY | {"total": None}))
        records.append(tmp_path / name, run(wrong_at(6), **more))
    return tmp_path / "ratios", tmp_path / "shots"


def test_runs_of_every_folder_come_back_in_order(folders):
    ratios, shots = folders
    combine.require_alike([shots], IDENTITY)
    assert [record["shots"] for record in combine.read(ratios, [shots])] == [None, 4]
    assert [record["shots"] for record in combine.read(ratios, [])] == [None]


def test_another_kind_of_experiment_is_refused_with_the_difference(folders, tmp_path, refused):
    with refused("--also", "shots", "steps 400 (requested: 300)"):
        combine.require_alike([folders[1]], IDENTITY | {"steps": 300})
    with refused("--also", "name an --output of evaluate"):
        combine.require_alike([tmp_path], IDENTITY)


def test_margin_outside_its_range_is_refused(refused):
    for margin in (0.0, 100.0):
        with refused(f"--margin {margin:g}"):
            Evaluate(margin=margin).require_valid()


def test_the_same_run_in_two_folders_is_refused(folders, refused):
    with refused("--also", "leave one of them out"):
        combine.read(folders[0], [folders[1], folders[1]])


def test_mixtures_of_another_total_have_images_of_their_own(folders):
    """As many images as a set has to have for a total of 4,400 are another set than the one for 220."""
    text = json.dumps(IDENTITY | {"total": 4400, "synthetic": "many"})
    (folders[1] / records.EXPERIMENT).write_text(text)
    combine.require_alike([folders[1]], IDENTITY | {"synthetic": "few"})


def test_mixtures_of_another_total_are_rows_of_their_own_compared_with_the_real_images():
    """Averaged into one they would be a row of a number of images that no run had."""
    few = sweep({1.0: [()] * 2, 0.0: [(0,)] * 2})
    many = sweep({0.0: [(0, 1, 2)] * 2}, total=4400, n_synthetic=4400)
    rows = summarise([*few, *many])
    assert [(label(row.arm), row.runs, row.n_synthetic) for row in rows] == [
        ("100% real", 2, 0), ("100% synthetic", 2, 200), ("100% synthetic, 4,400 images", 2, 4400),
    ]  # fmt: skip
    assert [row.change and round(row.change.points, 6) for row in rows] == [None, -3.333333, -10.0]


def external(folder, sets, **more):
    """A run scored on further sets, by name and digest, with as many of six images right as is said."""
    folder.mkdir()
    (folder / records.EXPERIMENT).write_text(json.dumps(IDENTITY | {"external": sets}))
    scores = {name: run([True] * 5 + [False], seed=8) for name in sets}
    records.append(folder, run(wrong_at(6), external=scores, **more))
    return folder


def test_two_external_sets_of_one_name_stay_two_and_one_of_two_names_is_one(tmp_path):
    one = external(tmp_path / "one", {"shelf": "a"})
    other = external(tmp_path / "other", {"shelf": "b", "../shelf": "a"}, seed=1)
    first, second = combine.read(one, [other])
    assert list(first["external"]) == ["shelf"]
    assert sorted(second["external"]) == ["shelf", f"shelf of {other}"]


def test_an_external_set_keeps_the_name_that_it_has_in_the_records(tmp_path, refused):
    folder = external(tmp_path / "one", {"shelf": pictures.numbered({"x": 2}).digest()})
    named = combine.named(folder, {"./shelf": pictures.numbered({"x": 2}), "b": pictures.numbered({"x": 3})})
    assert list(named) == ["shelf", "b"]
    with refused("--external shelf", "other images", "another --output"):
        combine.named(folder, {"shelf": pictures.numbered({"x": 3})})
    with refused("--external b", "the same images"):
        combine.named(tmp_path / "new", {"a": pictures.numbered({"x": 2}), "b": pictures.numbered({"x": 2})})


def test_arms_of_other_images_do_not_join_an_arm(folders, refused):
    for name, there, asked in (("synthetic", "a", "b"), ("arms", {"steps": 1}, {"steps": 2})):
        text = json.dumps(IDENTITY | {name: there})
        (folders[1] / records.EXPERIMENT).write_text(text)
        combine.require_alike([folders[1]], IDENTITY)
        combine.require_alike([folders[1]], IDENTITY | {name: there})
        with refused("--also", name):
            combine.require_alike([folders[1]], IDENTITY | {name: asked})
