"""Records of several experiments on one page."""

import json

import pytest
from runs import run, wrong_at

from evaluate import joined, records
from evaluate.config import Evaluate

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
    joined.require_alike([shots], IDENTITY)
    assert [record["shots"] for record in joined.read(ratios, [shots])] == [None, 4]
    assert [record["shots"] for record in joined.read(ratios, [])] == [None]


def test_another_kind_of_experiment_is_refused_with_the_difference(folders, tmp_path, refused):
    with refused("--also", "shots", "steps 400 (asked: 300)"):
        joined.require_alike([folders[1]], IDENTITY | {"steps": 300})
    with refused("--also", "name an --output of evaluate"):
        joined.require_alike([tmp_path], IDENTITY)


def test_margin_outside_its_range_is_refused(refused):
    for margin in (0.0, 100.0):
        with refused(f"--margin {margin:g}"):
            Evaluate(margin=margin).require_valid()


def test_the_same_run_in_two_folders_is_refused(folders, refused):
    with refused("--also", "leave one of them out"):
        joined.read(folders[0], [folders[1], folders[1]])


def test_arms_of_other_images_do_not_join_an_arm(folders, refused):
    for name, there, asked in (("synthetic", "a", "b"), ("arms", {"steps": 1}, {"steps": 2})):
        text = json.dumps(IDENTITY | {name: there})
        (folders[1] / records.EXPERIMENT).write_text(text)
        joined.require_alike([folders[1]], IDENTITY)
        joined.require_alike([folders[1]], IDENTITY | {name: there})
        with refused("--also", name):
            joined.require_alike([folders[1]], IDENTITY | {name: asked})
