"""The processes of one launch of generate, forked from one that has imported everything."""

import contextlib
import os
import signal
import socket
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import forks
import stub_sampler


def start(processes: int, options: Mapping[str, Any], draw: str = "") -> list[BaseProcess]:
    """Start that many processes of one launch; ``draw`` names a function of stub_sampler to sample with."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (processes, port, dict(options), draw)
    return [forks.start(_rank, rank, *arguments) for rank in range(processes)]


def kill(processes: list[BaseProcess]) -> None:
    """kill -9, at once."""
    for process in processes:
        if process.pid and process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
    wait(processes)


def wait(processes: list[BaseProcess]) -> list[int | None]:
    """Their exit codes, once they have ended."""
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def _rank(rank: int, processes: int, port: int, options: dict[str, Any], draw: str) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    from generate import command
    from generate.config import Generate

    if draw:
        samplers = stub_sampler.Samplers(getattr(stub_sampler, draw), options["batch_size"])
        command.Samplers = lambda *_: samplers  # type: ignore[assignment,misc]

    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        command.generate(Generate(**options))
