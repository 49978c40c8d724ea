"""What every command is put through: disturb a run at random moments, look at what is left, run it again."""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import disturb
import forks
from disturb import Fault
from outputs import contents, left_over, require_whole, unprotect

CLEANING = ("terminate", "fill")
"""After these a run can still tidy up itself."""
PATIENCE = 300
STOPPED = 128 + signal.SIGTERM


class Ended(NamedTuple):
    """A run that is over; the code of a killed one is the signal's number, negative."""

    code: int | None
    said: str
    touches: int


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A command with its arguments, and how to look at what it writes."""

    command: str
    words: Sequence[object]
    home: Path
    """Outputs of all runs lie below."""
    seen: Callable[[Path], Any]
    """What has to be the same after every run that ended well."""
    finished: Callable[[Path], set[Any]]
    """What must not be lost again once it is in the output."""
    going_on: Callable[[Path], Sequence[object]] = lambda output: ()
    """Further words of a run that goes on in this output."""
    draw: str = ""

    def start(self, output: Path, fault: Fault | None = None, clock: int | None = None) -> "Running":
        """Start it into ``output``; the fault happens at a touch of that folder."""
        words = [*self.words, *self.going_on(output), "--output", output]
        return Running(self.command, list(map(str, words)), output, fault, self.draw, clock)

    def run(self, output: Path, fault: Fault | None = None, clock: int | None = None) -> Ended:
        """Run it to its end."""
        return self.start(output, fault, clock).wait()


class Running:
    """A run in a process of its own."""

    def __init__(self, *arguments: Any) -> None:
        self.pipe, theirs = forks.CONTEXT.Pipe(duplex=False)
        self.process = forks.start(disturb.command, *arguments, theirs)
        theirs.close()

    def wait(self) -> Ended:
        """Until it is over."""
        self.process.join(PATIENCE)
        code = self.process.exitcode
        assert code is not None, "it hangs"
        return Ended(*self.pipe.recv()) if code == 0 else Ended(code, "", 0)

    def pause(self) -> bool:
        """Until it stands still; whether it does, rather than having ended."""
        while self.process.is_alive():
            with contextlib.suppress(OSError):  # a thread that has just ended
                threads = Path(f"/proc/{self.process.pid}/task").glob("*/stat")
                if {one.read_text().rpartition(")")[2].split()[0] for one in threads} == {"T"}:
                    return True
            time.sleep(0.005)
        return False

    def go_on(self) -> None:
        """After a pause."""
        os.kill(self.process.pid, signal.SIGCONT)


class Trials:
    """A subject, and what its undisturbed run left."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        output = subject.home / "undisturbed"
        ended = subject.run(output)
        assert ended.code == 0, ended.said
        self.touches, self.whole = ended.touches, subject.seen(output)
        assert self.whole

    def fresh(self, name: str) -> Path:
        """An output that is not there yet."""
        output = self.subject.home / name
        if output.exists():
            shutil.rmtree(output)
        return output

    def require_equal(self, output: Path) -> None:
        """It is as the undisturbed run left it, and nothing else lies there."""
        require_whole(output)
        assert left_over(output) == []
        assert self.subject.seen(output) == self.whole

    def disturbed(self, kind: str, expect: Callable[[Ended], None], times: int) -> None:
        """Let ``kind`` happen so many times, each in a run that goes on from what the one before left.

        A run that ends before its moment has to be equal to the undisturbed one; the next begins afresh.
        """
        chance = random.Random(f"{self.subject.command} {kind} {times}")
        output, before = self.fresh(kind), set[Any]()
        while times:
            fault = Fault(kind=kind, at=chance.randint(1, self.touches), share=chance.random())
            ended = self.subject.run(output, fault)
            unprotect(output)
            if ended.code == 0:
                self.require_equal(output)
                output, before = self.fresh(kind), set()
                continue
            times -= 1
            expect(ended)
            if kind in CLEANING:
                assert left_over(output) == [], fault
            require_whole(output)
            there = self.subject.finished(output)
            assert before <= there, (fault, before - there)
            before = there
        ended = self.subject.run(output)
        assert ended.code == 0, ended.said
        self.require_equal(output)

    def killed(self, times: int) -> None:
        """kill -9, the file being written cut off somewhere."""
        self.disturbed("kill", lambda ended: _expect(ended, -signal.SIGKILL), times)

    def terminated(self, times: int) -> None:
        """SIGTERM."""
        self.disturbed("terminate", _expect_stop, times)

    def full(self, times: int) -> None:
        """From some moment on no file can grow."""
        place = str(self.subject.home / "fill")
        self.disturbed("fill", lambda ended: expect_refusal(ended, place, "cannot be written"), times)

    def protected(self, times: int) -> None:
        """The output is read-only, from the start or from some moment on."""
        output = self.fresh("read-only")
        output.mkdir(mode=0o555)
        expect_refusal(self.subject.run(output), f"--output {output}", "cannot be written")
        assert list(output.iterdir()) == []
        place = str(self.subject.home / "protect")
        self.disturbed("protect", lambda ended: expect_refusal(ended, place, "cannot be written"), times)

    def two_writers(self, times: int) -> None:
        """Another run comes while one stands still at a random moment."""
        chance = random.Random(f"{self.subject.command} second {times}")
        for _ in range(times):
            output = self.fresh("second")
            first = self.subject.start(output, Fault(kind="pause", at=chance.randint(1, self.touches)))
            assert first.pause()
            before = contents(output)
            second = self.subject.run(output)
            if second.code == 0:  # the first had not begun, or was done
                self.require_equal(output)
            else:
                expect_refusal(second, f"--output {output}", "another run is writing there")
                assert contents(output) == before
            first.go_on()
            ended = first.wait()
            assert ended.code == 0, ended.said
            self.require_equal(output)

    def clock(self, times: int) -> None:
        """It jumps at every look, and what a killed run left is dated years back and forth."""
        chance = random.Random(0)
        for number in range(times):
            output = self.fresh("clock")
            fault = Fault(kind="kill", at=self.touches * 2 // 3)
            assert self.subject.run(output, fault, clock=2 * number + 1).code == -signal.SIGKILL
            for path in output.rglob("*"):
                moment = chance.uniform(0, 4e9)
                os.utime(path, (moment, moment))
            ended = self.subject.run(output, clock=2 * number + 2)
            assert ended.code == 0, ended.said
            self.require_equal(output)


FAULTS: dict[str, Callable[[Trials, int], None]] = {
    "kill -9": Trials.killed,
    "SIGTERM": Trials.terminated,
    "full disk": Trials.full,
    "read-only output": Trials.protected,
    "clock that jumps": Trials.clock,
    "two writers": Trials.two_writers,
}


def _expect(ended: Ended, code: int) -> None:
    assert ended.code == code, ended.said


def _expect_stop(ended: Ended) -> None:
    _expect(ended, STOPPED)
    assert "Traceback" not in ended.said
    assert ended.said.startswith("stopped"), ended.said


def expect_refusal(ended: Ended, *words: str) -> None:
    """One line with these words, and exit code 2."""
    assert ended.code == 2, ended.said
    assert ended.said.startswith("error: ") and ended.said.count("\n") == 1, ended.said
    for word in words:
        assert word in ended.said, ended.said
