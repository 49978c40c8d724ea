"""Defers SIGTERM, Ctrl-C and SIGHUP to the end of the step."""

import signal
from types import FrameType, TracebackType

import torch
from accelerate import Accelerator

from orchard.cli import signals

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""From a scheduler or a launcher, from Ctrl-C, from a terminal that is closed."""


class SamplingStoppedError(Exception):
    """A signal came while a sample sheet was drawn."""


class Interrupt:
    """Inside its ``with`` block, the first signal is only recorded; a second Ctrl-C stops at once.

    Outside of it a signal ends the run at once: nothing is lost there. From Python, signals are the caller's.
    """

    def __init__(self) -> None:
        self.number = 0

    def __enter__(self) -> "Interrupt":
        # nohup has SIGHUP ignored, and so it stays.
        deferred = [
            kind
            for kind in (SIGNALS if signals.is_command() else ())
            if kind != signal.SIGHUP or signal.getsignal(kind) != signal.SIG_IGN
        ]
        self._before = {kind: signal.signal(kind, self._record) for kind in deferred}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = self.number or number

    def exit_code(self, accelerator: Accelerator) -> int:
        """128 + the signal's number if any process got one, else 0.

        All processes have to call it at the same step, so that all stop after the same one.
        """
        largest = self.number
        if accelerator.num_processes > 1:
            own = torch.tensor([float(self.number)], device=accelerator.device)
            largest = int(accelerator.gather(own).max().item())
        return 128 + largest if largest else 0

    def stop_sampling(self) -> None:
        """Raise `SamplingStoppedError` if this process got a signal: a sheet can take minutes."""
        if self.number:
            raise SamplingStoppedError
