"""Two machines, as network namespaces of this one: each with its own address, folder and processes."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import forks
import shell
from conftest import ROOT

CLONE_NEWNET = 0x40000000
"""linux/sched.h"""
PORT = 29500
PATIENCE = 120
CONFIG = ROOT / "accelerate_configs" / "multi_node.yaml"
LAUNCH = (sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIG, "--num_processes", 2)


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of the two."""

    rank: int
    name: str
    folder: Path
    """Its own files."""

    @property
    def said(self) -> str:
        """What its last process printed."""
        return self.log.read_text()

    @property
    def log(self) -> Path:
        """Where that is."""
        return self.folder / "said.txt"

    def environment(self) -> dict[str, str]:
        """With a cache and a folder for passing files of its own."""
        own = {"ORCHARD_CACHE": self.folder / "cache", "HOME": self.folder, "TMPDIR": self.folder}
        return {**os.environ, **shell.ENVIRONMENT, "PYTHONPATH": str(ROOT)} | {
            name: str(path) for name, path in own.items()
        }

    def start(self, *words: object) -> BaseProcess:
        """One of two processes of a command, without a launcher, as a cluster's scheduler starts it."""
        launch = {
            "RANK": str(self.rank),
            "WORLD_SIZE": "2",
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": "1",
            "MASTER_ADDR": address(0),
            "MASTER_PORT": str(PORT),
        }
        self.log.unlink(missing_ok=True)
        self.log.touch()
        texts = [str(word) for word in words]
        return forks.start(_inside, self.name, texts[1:], self.folder, self.environment() | launch, self.log)

    def launch(self, *words: object) -> "subprocess.Popen[bytes]":
        """The launcher of the config for several machines, with one process on each."""
        place = ("--machine_rank", self.rank, "--main_process_ip", address(0), "--main_process_port", PORT)
        command = ("ip", "netns", "exec", self.name, *LAUNCH, *place, *words)
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [str(word) for word in command],
                cwd=self.folder,
                env=self.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def cut_off(self) -> None:
        """Take its network down."""
        _ip("-n", self.name, "link", "set", "wire", "down")

    def connect(self) -> None:
        """Bring its network up."""
        _ip("-n", self.name, "link", "set", "wire", "up")


def address(rank: int) -> str:
    """Of a machine in the network of the two."""
    return f"10.77.0.{rank + 1}"


@contextmanager
def two(folder: Path) -> Iterator[list[Node]]:
    """Two connected machines, with an empty folder each."""
    found = [
        Node(rank=rank, name=f"orchard-{os.getpid()}-{rank}", folder=folder / str(rank)) for rank in (0, 1)
    ]
    try:
        for node in found:
            node.folder.mkdir()
            _ip("netns", "add", node.name)
        first, second = (node.name for node in found)
        _ip("link", "add", "wire", "netns", first, "type", "veth", "peer", "name", "wire", "netns", second)
        for node in found:
            _ip("-n", node.name, "addr", "add", f"{address(node.rank)}/24", "dev", "wire")
            _ip("-n", node.name, "link", "set", "lo", "up")
            node.connect()
        yield found
    finally:
        for node in found:
            subprocess.run(["ip", "netns", "delete", node.name], check=False, stderr=subprocess.DEVNULL)


def run(nodes: Sequence[Node], *words: object) -> str:
    """One process on each to its end, which is a good one; what the first one printed."""
    processes = [node.start(*words) for node in nodes]
    assert wait(processes) == [0, 0], "\n".join(node.said for node in nodes)
    return nodes[0].said


def wait(processes: Sequence[BaseProcess]) -> list[int | None]:
    """Their exit codes."""
    for process in processes:
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in processes]


def kill(process: BaseProcess) -> None:
    """kill -9, as when the power of its machine fails."""
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def _inside(name: str, words: list[str], folder: Path, environment: dict[str, str], log: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", name).open() as network:
        assert libc.setns(network.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    shell.main(words, folder, environment, str(log))


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
