"""Shards are written while others are sampled: in order, few at once, nothing sampled is lost."""

import signal
import threading

import pytest
from stub_sampler import indices, noise, row

from generate.screening.screens import Screens
from orchard import shards
from orchard.cli import signals
from orchard.errors import WriteError

SHARDS = {"count": 20, "shard_size": 4, "batch_size": 4}
PATIENCE = 60


class Gate:
    """The second shard is written only once somebody opens."""

    def __init__(self, monkeypatch):
        self.open, self.reached, self.drawn = threading.Event(), threading.Event(), []
        store = shards.store

        def gated(folder, number, rows, header):
            assert threading.current_thread() is not threading.main_thread()
            if number == 1:
                self.reached.set()
                assert self.open.wait(PATIENCE)
            store(folder, number, rows, header)

        monkeypatch.setattr(shards, "store", gated)

    def draw(self, row):
        self.drawn.append(row.index)
        return noise(row)


def test_the_next_shard_is_sampled_while_one_is_written_and_no_more(tmp_path, generate, monkeypatch):
    gate = Gate(monkeypatch)

    def watch():
        """Shard 1 is not written before the last image of shard 2 is there; shard 3 has to wait for it."""
        assert gate.reached.wait(PATIENCE)
        for _ in range(100):
            if 11 in gate.drawn:
                break
            threading.Event().wait(PATIENCE / 100)
        threading.Event().wait(0.3)
        seen.append(max(gate.drawn))
        gate.open.set()

    seen: list[int] = []
    watcher = threading.Thread(target=watch)
    watcher.start()
    generate(tmp_path / "s", gate.draw, **SHARDS)
    watcher.join()
    assert seen == [11]
    assert indices(tmp_path / "s") == list(range(20))


@pytest.mark.parametrize("at", [9, 11])
def test_what_is_sampled_when_the_run_is_stopped_is_written_behind_the_shard_before(
    tmp_path, generate, monkeypatch, at
):
    gate = Gate(monkeypatch)

    def draw(row):
        if row.index == at:
            assert gate.reached.wait(PATIENCE)
            threading.Timer(0.2, gate.open.set).start()
            raise KeyboardInterrupt
        return gate.draw(row)

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "s", draw, **SHARDS)
    assert indices(tmp_path / "s") == list(range(at))


def test_a_signal_while_the_last_shards_are_waited_for_costs_nothing(tmp_path, generate, monkeypatch):
    """The signal comes to a thread that waits for the writer, twice."""
    gate = Gate(monkeypatch)
    monkeypatch.setattr(signals, "is_command", lambda: True)

    def stop():
        assert gate.reached.wait(PATIENCE)
        while len(gate.drawn) < 8:
            threading.Event().wait(0.01)
        threading.Event().wait(0.3)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
        threading.Event().wait(0.3)
        gate.open.set()

    stopper = threading.Thread(target=stop)
    before = signal.getsignal(signal.SIGTERM)
    stopper.start()
    try:
        with pytest.raises(signals.Terminated):
            generate(tmp_path / "s", gate.draw, **{**SHARDS, "count": 8})
    finally:
        signal.signal(signal.SIGTERM, before)
        stopper.join()
    assert indices(tmp_path / "s") == list(range(8))


def test_a_write_that_fails_stops_the_run_with_its_message(tmp_path, generate, monkeypatch, refused):
    failed, store, drawn = threading.Event(), shards.store, []

    def failing(folder, number, rows, header):
        if number == 1:
            failed.set()
            raise WriteError("data/x: cannot be written (No space left on device); make room there")
        store(folder, number, rows, header)

    def draw(row):
        if row.index == 9:
            assert failed.wait(PATIENCE)
            threading.Event().wait(0.3)
        drawn.append(row.index)
        return noise(row)

    monkeypatch.setattr(shards, "store", failing)
    with refused("data/x: cannot be written"):
        generate(tmp_path / "s", draw, **SHARDS)
    assert max(drawn) <= 10  # it is heard of at the next image
    # What was sampled of the shard behind it is there.
    assert indices(tmp_path / "s") == [0, 1, 2, 3, *range(8, max(drawn) + 1)]
    monkeypatch.setattr(shards, "store", store)
    generate(tmp_path / "s", **SHARDS)
    assert indices(tmp_path / "s") == list(range(20))


def test_a_failure_of_the_last_write_is_heard_too(tmp_path, generate, monkeypatch, refused):
    def failing(*arguments):
        raise WriteError("data/x: cannot be written")

    monkeypatch.setattr(shards, "store", failing)
    with refused("data/x: cannot be written"):
        generate(tmp_path / "s", count=4, shard_size=4)
    assert not (tmp_path / "s" / "manifest.json").exists()


def test_an_image_that_cannot_be_screened_stops_the_run_and_keeps_the_others(tmp_path, generate, monkeypatch):
    judge = Screens.judge

    def failing(self, image, label, prompt=""):
        if image.getpixel((0, 0)) == broken.getpixel((0, 0)):
            raise ZeroDivisionError
        return judge(self, image, label, prompt)

    broken = noise(row(6))
    monkeypatch.setattr(Screens, "judge", failing)
    with pytest.raises(ZeroDivisionError):
        generate(tmp_path / "s", **SHARDS)
    there = indices(tmp_path / "s")
    assert set(range(8)) - {6} <= set(there) and 6 not in there
