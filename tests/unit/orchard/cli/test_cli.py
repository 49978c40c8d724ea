import io
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from conftest import ROOT

from orchard.cli import cli
from orchard.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Training(cli.Options):
    """Options for tests."""

    output: Path = Path("out")
    """Where to."""
    steps: int = 10
    """Optimiser steps, 1 or more."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    classes: tuple[str, ...] = ()
    """Classes to use."""
    joint: bool = False
    """One adapter for all."""
    flip: bool = True
    """Mirror images."""
    shots: int | None = None
    """Images per class; None is all."""
    prompt: tuple[str, ...] = ()
    """Texts."""
    vary: cli.Section = ()
    """Phrases by name."""
    classifier: Path | None = None
    """A folder, or none."""

    def __post_init__(self) -> None:
        cli.check(self.steps >= 1, f"--steps {self.steps}: use 1 or more")


@dataclass(frozen=True, kw_only=True)
class Options(Training, cli.Common):
    """A command for tests."""

    GONE: ClassVar[Mapping[str, str]] = {"epochs": "use --steps"}


def parse(*arguments: str) -> Options:
    return cli.parse(Options, arguments, "prog")


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe and give the arguments that name it."""

    def write(text: str) -> tuple[str, str]:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return "--config", str(path)

    return write


@pytest.mark.parametrize("words", [("--epochs", "3"), ("--epochs=3",), ("--no-epochs",)])
def test_an_option_that_is_gone_says_what_to_use_instead(words, recipe, refused):
    with refused("epochs", "was removed; use --steps"):
        parse(*words)
    with refused("recipe.yaml: epochs: was removed; use --steps"):
        parse(*recipe("epochs: 3"))


@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", "ascii", None])
def test_a_mistake_is_the_same_line_whatever_the_output_takes(monkeypatch, encoding):
    stream = io.StringIO() if encoding is None else io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(UserError) as refusal:
        parse("--stepz", "3")
    assert str(refusal.value) == (
        "Unrecognized options: --stepz, 3 Perhaps you meant: --steps INT; see prog --help"
    )


MISTAKES = [
    ({"help": True}, "help: not an option"),
    ({"no_flip": []}, "no_flip: not an option of this command, --no_flip. Perhaps you meant --flip"),
    ({"stepz": 3}, "stepz: not an option of this command, --stepz. Perhaps you meant --steps"),
    ({"steps": [1, 2]}, "steps: [1, 2] is a list; give one value"),
    ({"classes": {"a"}}, "classes: ['a'] is a set, which has no order; give a list"),
    ({"prompt": ["-a", "b"]}, "prompt: -a begins with a dash"),
    ({"steps": None}, "steps: has no value"),
]


@pytest.mark.parametrize(("options", "words"), MISTAKES)
def test_a_wrong_keyword_or_value_of_a_call_is_one_line(options, words, refused):
    with refused(words):
        cli.resolve(Options, None, options, "prog")


def test_a_command_line_gives_back_its_config():
    config = Options(prompt=("-a {label}",), classes=("-b",), flip=False, steps=3, vary=("x=y",))
    words = shlex.split(cli.command("prog", config))
    assert cli.parse(Options, words[1:], "prog") == config


def test_a_list_that_is_given_twice_is_refused(refused):
    with refused("--classes is given twice"):
        parse("--classes", "a", "--classes", "b")
    assert parse("--steps", "1", "--steps", "2").steps == 2


def test_defaults_are_the_fields_own():
    assert parse() == Options()


def test_flags_take_underscores_and_hyphens():
    assert parse("--learning_rate", "0.5", "--no-flip") == parse("--learning-rate=0.5", "--no_flip")
    assert parse("--classes", "a", "b c").classes == ("a", "b c")


def test_recipe_holds_every_kind_of_value(recipe):
    text = (
        "steps: 3\nlearning_rate: 1e-4\nclasses: [a, 1, b c]\njoint: true\nflip: false\nshots: 4\ndata: -x\n"
    )
    config = parse(*recipe(text))
    assert config.steps == 3
    assert config.learning_rate == 0.0001
    assert config.classes == ("a", "1", "b c")
    assert (config.joint, config.flip, config.shots, config.data) == (True, False, 4, "-x")


def test_recipe_keys_may_have_hyphens(recipe):
    assert parse(*recipe("learning-rate: 0.5\ndry-run: true")) == parse(
        *recipe("learning_rate: 0.5\ndry_run: true")
    )


def test_flags_win_over_the_recipe_wherever_they_stand(recipe):
    given = recipe("steps: 3\nclasses: [a, b]\nflip: false\nseed: 4")
    for arguments in (
        ("--steps", "5", "--classes", "c", "--flip", *given),
        (*given, "--steps=5", "--classes=c", "--flip"),
    ):
        config = parse(*arguments)
        assert (config.steps, config.classes, config.flip, config.seed) == (5, ("c",), True, 4)


def test_flag_mends_a_recipe_that_fails_alone(recipe):
    assert parse(*recipe("steps: 0"), "--steps", "2").steps == 2


def test_empty_recipe_and_empty_list_change_nothing(recipe):
    assert parse(*recipe("# only a comment\n")).steps == 10
    assert parse(*recipe("classes: []")).classes == ()


def test_null_is_none_where_a_field_may_be_none(recipe):
    assert parse(*recipe("shots:")).shots is None
    assert parse(*recipe("shots: 3"), "--shots", "None").shots is None


# What YAML 1.1 takes for numbers, truth, dates, no value or a merged mapping.
ODD = (
    *("01", "010", "0x1F", "1_000", "1.10", "1e-4", ".inf", "12:30:45", "2024-01-01", "2024-99-99"),
    *("yes", "no", "on", "True", "null", "~", "=", "<<"),
)


@pytest.mark.parametrize("word", ODD)
def test_text_in_a_recipe_is_what_was_written(recipe, word):
    written = f"classes: [{word}, '{word}']\ndata: {word}\nprompt: {word}\nvary: {{{word}: [{word}, a]}}\n"
    config = parse(*recipe(written))
    assert config.classes == (word, word)
    assert (config.data, config.prompt) == (word, (word,))
    assert config.vary == (f"{word}={word}", f"{word}=a")
    assert parse(*recipe(f"classes: {word}")).classes == (word,)
    assert parse("--classes", word).classes == (word,)  # one meaning, wherever it stands


@pytest.mark.parametrize(
    ("text", "expected"),
    [("seed: 0x10", 16), ("seed: 1_000", 1000), ("learning_rate: 1e-4", 1e-4), ("learning_rate: 1_0.5", 10.5)]
    + [(f"joint: {word}", True) for word in ("true", "yes", "on", "True", "ON")]
    + [(f"flip: {word}", False) for word in ("false", "no", "off", "No")]
    + [(f"shots: {word}", None) for word in ("null", "~", "")]
    + [(f"classifier: {word}", None) for word in ("null", "~", "")],
)
def test_numbers_and_truth_in_a_recipe_are_as_yaml_has_them(recipe, text, expected):
    name = text.partition(":")[0]
    assert getattr(parse(*recipe(text)), name) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stepz: 3", ("--stepz", "Perhaps you meant", "--steps")),
        ("steps: x", ("--steps", "'x'")),
        ("steps: 0", ("--steps 0: use 1 or more",)),
        ("steps: 1.5", ("--steps", "'1.5'")),
        ("steps: {a: 1}", ("steps", "nested")),
        ("classes: [[a], [b]]", ("classes", "nested")),
        ("data:", ("data: has no value",)),
        ("classes:\n- a\n-", ("classes: has no value",)),
        ("vary: {light: }", ("vary: has no value",)),
        ("classes: [a]\nclasses: [b]", ("classes", "twice")),
        ("batch-size: 1\nbatch_size: 2", ("batch_size", "twice")),
        ("flip: maybe", ("flip: maybe is neither true nor false",)),
        ("config: other.yaml", ("cannot name another",)),
        ("steps: [1", ("not YAML",)),
        ("- steps", ("option: value",)),
        ("3: 4", ("--3",)),
        ("precision: fp8", ("fp8", "fp32", "bf16")),
    ],
)
def test_bad_recipe_is_one_line_that_names_the_file(recipe, text, words, refused):
    given = recipe(text)
    with refused(f"--config {given[1]}: ", *words):
        parse(*given)


def test_recipe_that_is_not_text_is_refused(tmp_path, refused):
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
    with refused("r.yaml", "not YAML"):
        parse("--config", str(tmp_path / "r.yaml"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--steps", "x"), ("--steps", "'x'", "see prog --help")),
        (("--steps", "0"), ("--steps 0: use 1 or more",)),
        (("--steps",), ("--steps", "Missing value")),
        (("--stepz", "3"), ("--stepz", "Perhaps you meant: --steps")),
        (("--precision", "fp8"), ("fp8", "bf16")),
        (("stray",), ("stray",)),
        (("--config", "nowhere.yaml"), ("--config nowhere.yaml: no such file",)),
        (("--config=nowhere.yaml",), ("--config nowhere.yaml: no such file",)),
        (("--config", "a", "--config", "b"), ("--config a b: only one recipe per run",)),
        (("--config",), ("--config", "Missing value")),
    ],
)
def test_bad_flag_is_one_line(arguments, words, refused):
    with refused(*words):
        parse(*arguments)


def run_with(monkeypatch, capsys, main, *arguments: str):
    monkeypatch.setattr(sys, "argv", ["prog", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.run(Options, main, "prog")
    return stop.value.code, capsys.readouterr()


def test_user_error_is_one_line_and_code_two(monkeypatch, capsys):
    def main(config):
        raise UserError("apple:\n  mend it")

    assert run_with(monkeypatch, capsys, main) == (2, ("", "error: apple: mend it\n"))


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"), MemoryError(),
     RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")],
)  # fmt: skip
def test_a_full_memory_is_one_line_that_says_what_to_change(monkeypatch, capsys, error):
    def main(config):
        raise error

    code, printed = run_with(monkeypatch, capsys, main)
    assert code == 2 and len(printed.err.splitlines()) == 1
    assert printed.err.startswith("error: out of memory (") and "--batch_size" in printed.err


def test_another_error_of_the_network_is_no_refusal(monkeypatch, capsys):
    def main(config):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        run_with(monkeypatch, capsys, main)


def test_interrupt_ends_with_130_and_a_hint(monkeypatch, capsys):
    def main(config):
        raise KeyboardInterrupt

    code, printed = run_with(monkeypatch, capsys, main)
    assert code == 130
    assert "what was finished is kept" in printed.err


def test_other_errors_are_not_hidden(monkeypatch):
    def main(config):
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["prog"])
    with pytest.raises(ZeroDivisionError):
        cli.run(Options, main, "prog")


COMMAND = '''
"""A command of its own file: the field docstrings are read from there."""
import sys
from dataclasses import dataclass
from orchard.cli import cli

@dataclass(frozen=True, kw_only=True)
class Training(cli.Options):
    """How it is trained."""
    steps: int = 1
    """Optimiser steps."""

@dataclass(frozen=True, kw_only=True)
class Options(Training, cli.Common):
    """A command."""

try:
    cli.run(Options, lambda config: None, "prog")
finally:
    print("heavy:", sorted({"torch", "datasets", "diffusers", "numpy", "PIL"} & set(sys.modules)))
'''


def test_help_comes_without_heavy_imports(tmp_path):
    (tmp_path / "command.py").write_text(COMMAND)
    done = subprocess.run(
        [sys.executable, tmp_path / "command.py", "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Optimiser steps." in done.stdout
    assert "─ training options ─" in done.stdout and "How it is trained." in done.stdout
    assert "flags win over it" in " ".join(done.stdout.replace("│", " ").split())
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_description_is_plain_json_without_what_does_not_change_the_result():
    described = cli.describe(parse("--classes", "a"))
    assert described["output"] == "out"
    assert described["classes"] == ["a"]
    assert described["shots"] is None
    assert not {"config", "dry_run"} & described.keys()


def test_lists_may_be_spaced_or_comma_separated():
    assert cli.split_list(("a,b", "c", "d,")) == ["a", "b", "c", "d"]


def test_check_raises_only_when_the_condition_fails(refused):
    cli.check(True, "never")
    with refused("--x 3: use 1 or 2"):
        cli.check(False, "--x 3: use 1 or 2")
