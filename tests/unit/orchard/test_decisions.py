"""The file of a person's decisions: what holds after each action, and what a crash leaves."""

import json

import pytest

from orchard import decisions
from orchard.decisions import Decision, act, current, read

A, B, C = ({name: name * 64} for name in "abc")


@pytest.fixture
def path(tmp_path):
    return tmp_path / decisions.FILE


def verdicts(path):
    return {name: one.verdict for (name, _), one in current(read(path)).items()}


def test_the_last_word_counts_and_is_signed(path):
    act(path, "keep", A | B, "ann")
    act(path, "reject", B, "bob", note="")
    assert verdicts(path) == {"a": "keep", "b": "reject"}
    found = current(read(path))["b", "b" * 64]
    assert found.reviewer == "bob" and found.time.endswith("+00:00")


def test_a_note_leaves_the_verdict_and_a_verdict_the_note(path):
    act(path, "reject", A, "ann")
    act(path, "note", A, "ann", note="<b>blurred</b>")
    act(path, "keep", A, "ann")
    (found,) = current(read(path)).values()
    assert (found.verdict, found.note) == ("keep", "<b>blurred</b>")


def test_undo_takes_back_action_by_action_what_the_reviewer_did(path):
    act(path, "keep", A | B, "ann")
    act(path, "reject", B | C, "ann")
    act(path, "reject", A, "bob")
    act(path, "undo", {}, "ann")
    assert verdicts(path) == {"a": "reject", "b": "keep"}
    act(path, "undo", {}, "ann")
    assert verdicts(path) == {"a": "reject"}
    act(path, "undo", {}, "ann")
    assert verdicts(path) == {"a": "reject"}


def test_what_is_cleared_is_undecided(path):
    act(path, "keep", A, "ann")
    act(path, "clear", A, "ann")
    assert verdicts(path) == {"a": ""}


def test_photos_that_were_shown_are_no_decisions_and_cannot_be_undone(path):
    act(path, "shown", A, "ann")
    act(path, "undo", {}, "ann")
    assert decisions.shown(read(path)) == {"a" * 64} and current(read(path)) == {}


def test_another_file_under_the_name_is_another_image(path):
    act(path, "reject", A, "ann")
    assert current(read(path)).get(("a", "f" * 64), Decision()).verdict == ""


def test_a_line_that_a_crash_cut_off_is_lost_alone(path):
    act(path, "keep", A, "ann")
    act(path, "keep", B, "ann")
    path.write_bytes(path.read_bytes()[:-9])
    assert verdicts(path) == {"a": "keep"}
    act(path, "keep", C, "ann")
    assert verdicts(path) == {"a": "keep", "c": "keep"}


@pytest.mark.parametrize(
    "line",
    [
        "nothing",
        json.dumps({"verb": "burn", "images": {}, "reviewer": "", "time": ""}),
        json.dumps({"verb": "keep", "images": ["a"], "reviewer": "", "time": ""}),
        json.dumps({"verb": "keep", "images": {}, "reviewer": "", "time": "", "more": 1}),
    ],
)
def test_a_damaged_line_is_refused_by_name(path, refused, line):
    path.write_text(line + "\n")
    with refused(str(path), "damaged", "mend or remove"):
        read(path)


def test_no_file_is_no_decisions(path):
    assert read(path) == []
