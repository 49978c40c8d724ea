"""Records, decisions, checkpoints and optimiser states that anybody may have made."""

import contextlib
import json
from pathlib import Path

import pytest
import runs
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutations import changed, damaged, fuzz, works_or_refuses

from evaluate.analysis import analyse
from evaluate.records import combine, records
from evaluate.report.html_page import Context, render, require_records
from finetune.training import checkpoints
from orchard import decisions
from orchard.files import atomic

RUNS = [runs.run(runs.wrong_at(6, 1), ratio=ratio, seed=0) for ratio in (1.0, 0.5)]
RUNS[0]["mixing_choice"] = {"chosen": "union", "tried": {"union": 0.5}, "untried": ["x"]}
RUNS[1]["external"] = {"shelf": {**RUNS[0], "predictions": RUNS[0]["predictions"]}}


def page(folder: Path) -> None:
    """Numbers and page of the records in a folder."""

    def whole() -> None:
        found = combine.read(folder, ())
        require_records(found)
        render(found, analyse.analyse(found, 2.0, {}), Context(title="t", commands=()))

    works_or_refuses(whole)
    works_or_refuses(lambda: records.noted(folder))


@pytest.mark.slow  # each renders the page
@fuzz(40)
@given(record=changed(RUNS[0] | {"external": RUNS[1]["external"]}))
def test_a_strange_record_is_read_or_refused(tmp_path, record):
    lines = (json.dumps(one) for one in (record, RUNS[1]))
    (tmp_path / records.RECORDS).write_text("".join(f"{line}\n" for line in lines))
    page(tmp_path)


@fuzz(40)
@given(data=damaged("".join(f"{json.dumps(one)}\n" for one in RUNS).encode()))
def test_damaged_records_are_read_or_refused(tmp_path, data):
    (tmp_path / records.RECORDS).write_bytes(data)
    page(tmp_path)


@fuzz(60)
@given(value=changed({"model": "cnn", "external": {"x": "0"}, "commands": ["python"], "size": 64}))
def test_a_strange_experiment_is_read_or_refused(tmp_path, value):
    (tmp_path / records.EXPERIMENT).write_text(json.dumps(value))
    works_or_refuses(lambda: combine.require_alike([tmp_path], {"model": "cnn"}))


ACTION = {"verb": "note", "images": {"a.png": "0" * 64}, "reviewer": "ann", "time": "2026", "note": "dark"}


@fuzz(100)
@given(action=changed(ACTION), data=damaged(f"{json.dumps(ACTION)}\n".encode() * 2))
def test_strange_decisions_are_read_or_refused(tmp_path, action, data):
    path = tmp_path / decisions.FILE
    for lines in (f"{json.dumps(action)}\n{json.dumps(ACTION)}\n".encode(), data):
        path.write_bytes(lines)
        works_or_refuses(lambda: decisions.current(decisions.read(path)))


STATE = {"weights": [torch.ones(2)], "step": 3, "pair": (1, "x"), "none": None}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("job") / "step-000002"
    folder.mkdir()
    for name in (checkpoints.STATE, checkpoints.RANDOM.format(process=0)):
        checkpoints.save_state(folder / name, STATE)
    names = {path.name: atomic.file_hash(path) for path in folder.iterdir()}
    atomic.write_json(
        folder / checkpoints.MANIFEST, {"losses": [1.0, 0.5], "identity": {"a": 1}, "files": names}
    )
    return folder


@fuzz(120)
@given(data=st.data())
def test_a_strange_checkpoint_is_read_or_named_as_broken(checkpoint, data):
    path = checkpoint / checkpoints.MANIFEST
    whole = path.read_text()
    path.write_text(json.dumps(data.draw(changed(json.loads(whole)))))
    found, broken = checkpoints.latest(checkpoint.parent)
    assert found is None or not broken
    works_or_refuses(lambda: checkpoints.require_same_options(found, {"a": 2}) if found else None)
    path.write_text(whole)


def test_a_checkpoint_that_names_none_of_its_files_is_broken(checkpoint):
    path = checkpoint / checkpoints.MANIFEST
    whole = path.read_text()
    atomic.write_json(path, json.loads(whole) | {"files": {}})
    _, (line,) = checkpoints.latest(checkpoint.parent)
    path.write_text(whole)
    assert "does not name" in line


@fuzz(120)
@given(data=st.data())
def test_a_damaged_state_is_read_or_is_none(tmp_path, data):
    path = tmp_path / "state.safetensors"
    checkpoints.save_state(path, STATE)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    with contextlib.suppress(ValueError):
        checkpoints.load_state(path)
