"""A reader that goes away ends every command without a word."""

import os
import subprocess

import pytest
from shell import CLASSIFY, ENVIRONMENT, EVALUATE, GENERATE, TRAIN, command

from orchard.cli import signals


def closed(folder, words: tuple[object, ...]) -> tuple[int, str]:
    """Exit code and stderr of a command whose stdout nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env=environment,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", [TRAIN, GENERATE, CLASSIFY, EVALUATE], ids=lambda words: words[-1])
def test_help_into_a_closed_pipe_is_quiet(tmp_path, words):
    assert closed(tmp_path, (*words, "--help")) == (signals.CODE, "")


def test_a_plan_into_a_closed_pipe_is_quiet(tmp_path):
    words = (*CLASSIFY, "--train", "demo", "--test", "demo", "--dry_run")
    assert closed(tmp_path, words) == (signals.CODE, "")
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_of_somebody_else_is_no_reason_to_be_quiet():
    with pytest.raises(BrokenPipeError), signals.closing():
        raise BrokenPipeError


def test_names_in_any_encoding_can_be_printed(tmp_path):
    words = (*CLASSIFY, "--train", "demo", "--test", "demo", "--output", os.fsdecode(b"caf\xe9"), "--dry_run")
    assert "caf\\udce9" in command(tmp_path, *words, PYTHONUTF8="1")
