"""The commands as users type them, each in a process of its own.

Most of what a command costs is its imports, so each is forked from a process that has made them. Launchers,
and what libraries read from the environment as they are imported, get a new interpreter.
"""

import os
import runpy
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import forks
from conftest import ROOT

TRAIN = (sys.executable, str(ROOT / "finetune" / "train_lora.py"))
TRAIN_GAN, TRAIN_VAE = (
    (sys.executable, str(ROOT / "finetune" / f"train_{name}.py")) for name in ("gan", "vae")
)
GENERATE = (sys.executable, "-m", "generate")
EXPORT = (sys.executable, "-m", "generate.export")
AUDIT = (sys.executable, "-m", "evaluate.audit")
LOSSES = (sys.executable, "-m", "finetune.losses")
REVIEW = (sys.executable, "-m", "review")
CLASSIFY = (sys.executable, "-m", "classify")
EVALUATE = (sys.executable, "-m", "evaluate")
TWO = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2")
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "COLUMNS": "200",
}


PATIENCE = 600
FORKED = (TRAIN, TRAIN_GAN, TRAIN_VAE, LOSSES, GENERATE, EXPORT, REVIEW, CLASSIFY, EVALUATE, AUDIT)
"""All commands."""
READ_BY_IMPORTS = ("HF_", "HUGGINGFACE_", "PYTHON", "CUDA", "HTTP", "http", "ACCELERATE")
"""Beginnings of the names of variables that libraries read once."""


def command(folder: Path, *words: object, code: int = 0, **environment: str) -> str:
    """Run in ``folder``, expect the exit code, give back stdout and stderr together."""
    texts = [str(word) for word in words]
    fork = any(tuple(texts[: len(one)]) == one for one in FORKED)
    fork = fork and not any(name.startswith(READ_BY_IMPORTS) for name in environment)
    fork = fork and not any(name.startswith("COVERAGE") for name in os.environ)
    done, output = (_forked if fork else _new)(folder, texts, {**ENVIRONMENT, **environment})
    assert done == code, output
    return output


def _new(folder: Path, words: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout


def _forked(folder: Path, words: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    with tempfile.NamedTemporaryFile() as output:
        process = forks.start(main, words[1:], folder, {**os.environ, **environment}, output.name)
        process.join(PATIENCE)
        said = Path(output.name).read_text()
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"{shlex.join(words)} hangs: {said}")
        return process.exitcode, said


def main(words: Sequence[str], folder: Path, environment: Mapping[str, str], output: str) -> None:
    """What the interpreter does with ``-m MODULE`` or a script's path."""
    for stream, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND), number)
        setattr(sys, stream, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ |= environment
    sys.path[:] = [place for place in sys.path if not Path(place).is_relative_to(ROOT / "tests")]
    if words[0] == "-m":
        sys.argv = list(words[1:])
        sys.path.insert(0, str(folder))
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")


def refusal(folder: Path, *words: object, **environment: str) -> str:
    """The one line of an error with exit code 2; nothing may have been written."""
    before = sorted(folder.rglob("*"))
    output = command(folder, *words, code=2, **environment)
    assert "Traceback" not in output
    line = output.strip().splitlines()[-1]
    assert line.startswith("error: "), output
    assert sorted(folder.rglob("*")) == before
    return line
