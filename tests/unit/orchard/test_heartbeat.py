"""A process hears of one that is gone, whatever became of it; machines with different files are found out."""

import errno
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import launches
import pytest
from conftest import ROOT

from orchard import devices, heartbeat
from orchard.errors import UserError
from orchard.heartbeat import Heartbeat, Peer

PATIENCE = 30


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(heartbeat, "GRACE", 0.1)


def connected() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        return one, server.accept()[0]


class Run:
    """Processes of one run, as threads; ``ended`` gets what the rank was told."""

    def __init__(self, size: int) -> None:
        self.told: dict[int, str] = {}
        self.ended = threading.Semaphore(0)
        pairs = {rank: connected() for rank in range(1, size)}
        centre = [Peer(rank=rank, host=f"m{rank}", connection=pair[0]) for rank, pair in pairs.items()]
        self.of = {0: self._of(0, centre, size)} | {
            rank: self._of(rank, [Peer(rank=0, host="m0", connection=pair[1])], size)
            for rank, pair in pairs.items()
        }

    def _of(self, rank: int, peers: list[Peer], size: int) -> Heartbeat:
        def told(why: str) -> None:
            self.told[rank] = why
            self.ended.release()

        return Heartbeat(peers=peers, size=size, on_lost=told)

    def start(self, *ranks: int) -> None:
        for rank in ranks:
            self.of[rank].start()

    def wait(self, number: int) -> dict[int, str]:
        for _ in range(number):
            assert self.ended.acquire(timeout=PATIENCE)
        return self.told


def test_who_is_killed_is_named_to_all_others_at_once():
    run = Run(3)
    run.start(0, 1)
    run.of[2].peers[0].connection.close()
    told = run.wait(2)
    assert told[0] == told[1]
    assert "process 2 of 3, on m2, ended before the run was done" in told[0]
    assert "--resume latest" in told[0]


def unanswered(peer: Peer) -> None:
    """What the kernel makes of a connection whose other end did not answer it."""

    class Broken:
        fileno = peer.connection.fileno
        sendall = peer.connection.sendall

        def recv(self, size: int) -> bytes:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    peer.connection = Broken()


def test_a_machine_that_does_not_answer_is_named_to_all_others():
    run = Run(3)
    unanswered(run.of[0].peers[1])
    run.of[2].peers[0].say("")
    run.start(0, 1)
    told = run.wait(2)
    assert told[0] == told[1]
    assert "process 2 of 3, on m2, has not answered for 30 s" in told[0] and "network is down" in told[0]


def test_kernels_ask_each_other_and_give_up_within_a_minute():
    (peer,) = Run(2).of[0].peers
    assert peer.connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    asked = [peer.connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{name}"))
             for name in ("IDLE", "INTVL", "CNT")]  # fmt: skip
    assert asked[0] + asked[1] * asked[2] < 60 - heartbeat.GRACE


def test_a_process_that_is_busy_or_stopped_is_not_taken_for_a_lost_one():
    run = Run(2)
    run.start(1)  # the first one does not run
    assert not run.ended.acquire(timeout=0.5)


def test_nobody_is_told_of_one_that_is_done():
    run = Run(3)
    run.start(0, 1, 2)
    run.of[2].leave()
    run.of[2].peers[0].connection.shutdown(socket.SHUT_RDWR)
    assert not run.ended.acquire(timeout=0.5) and [peer.rank for peer in run.of[0].peers] == [1]
    run.of[0].leave()
    run.of[0].peers[0].connection.shutdown(socket.SHUT_RDWR)
    assert not run.ended.acquire(timeout=0.5)


def test_an_error_is_explained_by_a_lost_process_only_where_a_collective_failed():
    run = Run(2)
    own = run.of[0]
    broken = RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heartbeat, "_own", own)
        assert not heartbeat.explains(broken) and not heartbeat.lost()
        own.start()
        run.of[1].peers[0].connection.close()
        assert heartbeat.explains(broken) and "process 1 of 2" in heartbeat.lost()
        assert not heartbeat.explains(RuntimeError("shapes do not fit"))
    assert not heartbeat.explains(broken)


def test_a_stranger_who_calls_is_not_taken_for_a_process():
    for said in (b"GET / HTTP/1.1\n", b'["wrong", 1, "m"]\n', b"3\n", b""):
        one, other = connected()
        other.sendall(said)
        other.close()
        assert heartbeat._answer(one, "token") == []
    one, other = connected()
    other.sendall(b'["token", 4, "m"]\nleft\n')
    (peer,) = heartbeat._answer(one, "token")
    assert (peer.rank, peer.host, peer.lines()) == (4, "m", ["left"])


def put(state, name, said):
    Path(f"{name}{state.process_index}").write_text(said)


def agree(options, draw):
    """What each process gets, written beside one another."""
    os.chdir(options["folder"])
    state = devices.processes()
    calls = itertools.count(state.process_index * 10)
    put(state, "value", str(devices.from_first(state, lambda: next(calls))))

    def refuse():
        raise UserError("nothing left")

    for name, action in (
        ("refusal", lambda: devices.from_first(state, refuse)),
        ("same", lambda: devices.require_same(state, {"base": "x"})),
        ("other", lambda: devices.require_same(state, {"base": "x", "photos": state.process_index})),
    ):
        try:
            put(state, name, str(action()))
        except UserError as error:
            put(state, name, str(error))
    state.wait_for_everyone()
    state.destroy_process_group()


def test_what_the_first_process_finds_or_refuses_holds_for_all_and_other_files_are_named(tmp_path):
    assert launches.wait(launches.start(2, {"folder": str(tmp_path)}, call=agree)) == [0, 0]
    said = [
        {name: (tmp_path / f"{name}{rank}").read_text() for name in ("value", "refusal", "same", "other")}
        for rank in (0, 1)
    ]
    assert said[0] == said[1]
    assert (said[0]["value"], said[0]["refusal"], said[0]["same"]) == ("0", "nothing left", "None")
    assert "process 1 has photos 1 (process 0: 0)" in said[0]["other"]


STORING = """
import socket, sys, time
from pathlib import Path
from generate.sampling.writer import Writer
from orchard import heartbeat
from orchard.cli import cli, signals

heartbeat.GRACE = 0.2
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))

def store():
    time.sleep(1.5)
    Path(sys.argv[2]).touch()

with cli.one_line():
    peer = heartbeat.Peer(rank=1, host="m1", connection=connection)
    heartbeat._own = heartbeat.Heartbeat(peers=[peer], size=2, on_lost=heartbeat.on_lost)
    heartbeat._own.start()
    with signals.heard(), Writer() as writer:
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            writer.put(store)
"""
"""A process that takes longer to store what it has than the other one, and than `heartbeat.GRACE`."""


@pytest.mark.parametrize(("stopped", "code"), [(True, 128 + signal.SIGTERM), (False, heartbeat.CODE)])
def test_what_is_sampled_is_stored_whether_all_are_stopped_or_one_is_lost(tmp_path, stopped, code):
    with socket.create_server(("127.0.0.1", 0)) as server:
        words = [sys.executable, "-c", STORING, str(server.getsockname()[1]), str(tmp_path / "stored")]
        environment = {**os.environ, "WORLD_SIZE": "2"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(words, env=environment, cwd=ROOT, text=True, **pipes)
        other, _ = server.accept()
    assert process.stdout and process.stdout.readline() == "ready\n"
    if stopped:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    other.close()
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == code and (tmp_path / "stored").exists()
    assert "stopped; what was finished is kept" in said and "Traceback" not in said
