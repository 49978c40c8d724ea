"""The processes of one launch of generate, forked from one that has imported everything."""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import forks
import stub_sampler

PATIENCE = 120
Hook = Callable[[str, tuple[Any, ...]], None]


def start(
    processes: int,
    options: Mapping[str, Any],
    draw: str = "",
    hooks: Mapping[int, Hook] | None = None,
    call: Callable[[dict[str, Any], str], None] | None = None,
) -> list[BaseProcess]:
    """Start that many processes of one launch; ``draw`` names a function of stub_sampler to sample with.

    ``hooks`` are audit hooks by rank. ``call`` is what each does, by default `generate`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (processes, port, dict(options), draw, call or generate)
    return [forks.start(_rank, rank, (hooks or {}).get(rank), *arguments) for rank in range(processes)]


def kill(processes: list[BaseProcess]) -> None:
    """kill -9, at once."""
    for process in processes:
        if process.pid and process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
    wait(processes)


def killed(processes: list[BaseProcess]) -> bool:
    """Wait until one of them is killed, and kill the others; False where all end well."""
    running = processes
    while running:
        assert connection.wait([process.sentinel for process in running], PATIENCE), "it hangs"
        running = [process for process in processes if process.is_alive()]
        codes = {process.exitcode for process in processes} - {None, 0}
        if codes:
            assert -signal.SIGKILL in codes
            kill(processes)
            return True
    return False


def wait(processes: list[BaseProcess]) -> list[int | None]:
    """Their exit codes, once they have ended."""
    for process in processes:
        process.join(PATIENCE)
    return [process.exitcode for process in processes]


def _rank(
    rank: int,
    hook: Hook | None,
    processes: int,
    port: int,
    options: dict[str, Any],
    draw: str,
    call: Callable[[dict[str, Any], str], None],
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    if hook:
        sys.addaudithook(hook)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        call(options, draw)


def generate(options: dict[str, Any], draw: str) -> None:
    """Run the command."""
    from generate import command
    from generate.config import Generate

    if draw:
        samplers = stub_sampler.Samplers(getattr(stub_sampler, draw), options["batch_size"])
        command.Samplers = lambda *_: samplers  # type: ignore[assignment,misc]
    command.generate(Generate(**options))
