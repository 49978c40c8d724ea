"""Processes of one `generate` launch, as torchrun starts them, forked from one that has imported everything."""

import contextlib
import multiprocessing
import os
import signal
import socket
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["generate.command", "diffusers", "datasets", "launches"])


def start(processes: int, options: Mapping[str, Any]) -> list[BaseProcess]:
    """Start that many processes of one launch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = [CONTEXT.Process(target=_rank, args=(k, processes, port, dict(options))) for k in range(processes)]
    for process in found:
        process.start()
    return found


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


def _rank(rank: int, processes: int, port: int, options: dict[str, Any]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    from generate.command import generate
    from generate.config import Generate

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        generate(Generate(**options))
