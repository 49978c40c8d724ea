"""A command in a forked process that something happens to at a chosen moment.

The moments are the command's touches of a folder: whenever it opens, renames, makes or deletes something
there. They are counted by an audit hook, so that the n-th of a seeded draw is the same moment every time,
also between the last byte of a file and its renaming.
"""

import contextlib
import ctypes
import gc
import importlib
import io
import os
import resource
import runpy
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import shifted_clock
import stub_sampler

from orchard.cli import cli

MODULES = {
    "finetune": "finetune.train_lora",
    "generate": "generate.__main__",
    "classify": "classify.__main__",
    "evaluate": "evaluate.__main__",
}
EVENTS = frozenset(
    ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "shutil.rmtree")
)
CAP_DAC_OVERRIDE, CAPABILITY_VERSION = 1, 0x20080522
LARGEST_REST = 4000
"""Bytes that may still fit into a file once the disk is full."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens before touch number ``at``; ``share`` of 1 says how much of a file is on the disk."""

    kind: str
    at: int
    share: float = 0.0


class Touches:
    """Counts the touches of a folder, and lets the fault happen at its own."""

    def __init__(self, folder: Path, fault: Fault | None) -> None:
        self.folder, self.fault, self.count, self.busy = str(folder), fault, 0, False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook."""
        if event not in EVENTS or self.busy or not self._is_ours(arguments[0]):
            return
        self.busy = True
        try:
            self.count += 1
            if self.fault and self.count == self.fault.at:
                ACTIONS[self.fault.kind](self.fault, event, arguments, self.folder)
        finally:
            self.busy = False

    def _is_ours(self, path: Any) -> bool:
        # Names relative to an open folder come from the deletion of a tree; the commands do no other.
        return isinstance(path, str | os.PathLike) and (
            str(path).startswith(self.folder) or not Path(path).is_absolute()
        )


def _kill(fault: Fault, event: str, arguments: tuple[Any, ...], folder: str) -> None:
    """kill -9, with no more on the disk than a share of what was being written."""
    path = Path(arguments[0])
    if path.suffix == ".part" and path.is_file():
        os.truncate(path, int(fault.share * path.stat().st_size))
    elif event == "open" and "a" in (arguments[1] or ""):
        with path.open("a") as file:
            file.write('{"half a line": '[: 1 + int(fault.share * 15)])
    os.kill(os.getpid(), signal.SIGKILL)


def _terminate(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _fill(fault: Fault, *_: Any) -> None:
    """From now on no file grows beyond a few bytes."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(fault.share * LARGEST_REST), hard))


def _protect(fault: Fault, event: str, arguments: tuple[Any, ...], folder: str) -> None:
    for path in (Path(folder), *Path(folder).rglob("*")):
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def _pause(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


ACTIONS: Mapping[str, Callable[..., None]] = {
    "kill": _kill,
    "terminate": _terminate,
    "fill": _fill,
    "protect": _protect,
    "pause": _pause,
}


def command(
    name: str,
    words: Sequence[str],
    folder: Path,
    fault: Fault | None,
    draw: str,
    clock: int | None,
    pipe: Any,
) -> None:
    """Run a command as typed; send exit code, what it said on stderr, and its touches of ``folder``."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if clock is not None:
        shifted_clock.jump(clock)
    _obey_modes()
    gc.freeze()  # what was imported is no garbage, and takes long to look through
    main = runpy.run_module(MODULES[name], run_name=name)["main"]
    if draw:
        sampling = importlib.import_module("generate.command")
        sampling.Samplers = lambda config, *_: stub_sampler.Samplers(  # type: ignore[attr-defined]
            getattr(stub_sampler, draw), config.batch_size
        )
    sys.argv = [name, *words]
    touches, said, code = Touches(folder, fault), io.StringIO(), 0
    sys.addaudithook(touches)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            cli.run(get_type_hints(main)["config"], main, name)
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            code = 1
            traceback.print_exc()
    pipe.send((code, said.getvalue(), touches.count))


def _obey_modes() -> None:
    """Give up root's right to write where the mode forbids it."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0, ctypes.get_errno()
    sets[0] &= ~(1 << CAP_DAC_OVERRIDE)
    assert libc.capset(header, sets) == 0, ctypes.get_errno()
