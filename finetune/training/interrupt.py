"""A signal that asks to stop, as a wish that the training loop grants between two steps."""

import signal
from types import FrameType, TracebackType

import torch
from accelerate import Accelerator

from orchard.cli import signals

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""From a scheduler or a launcher, from Ctrl-C, from a terminal that is closed."""


class BrokenOffError(Exception):
    """Samples for people were broken off, since a signal came."""


class Interrupt:
    """Inside its ``with`` block, the first signal is noted; a second Ctrl-C stops at once.

    Outside of it a signal ends the run wherever it stands: nothing is lost there. In a process that is no
    command of ours, signals are left to whom they belong.
    """

    def __init__(self) -> None:
        self.number = 0

    def __enter__(self) -> "Interrupt":
        # What nohup has told to be ignored stays so.
        heard = [
            kind
            for kind in (SIGNALS if signals.is_command() else ())
            if kind != signal.SIGHUP or signal.getsignal(kind) != signal.SIG_IGN
        ]
        self._before = {kind: signal.signal(kind, self._note) for kind in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = self.number or number

    def agreed(self, accelerator: Accelerator) -> int:
        """Exit code when any process was asked to stop (128 + the signal's number), else 0.

        All processes have to ask at the same step, so that all stop after the same one.
        """
        asked = torch.tensor(float(self.number), device=accelerator.device)
        largest = accelerator.gather(asked.reshape(1)).max().item()
        return 128 + int(largest) if largest else 0

    def break_off(self) -> None:
        """Raise `BrokenOffError` when this process was asked to stop: pictures can take minutes."""
        if self.number:
            raise BrokenOffError
