"""SIGTERM and Ctrl-C as a wish that the training loop grants between two steps."""

import signal
from types import FrameType, TracebackType
from typing import Any

import torch


class Interrupt:
    """Inside its ``with`` block, the first signal is noted; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.number = 0

    def __enter__(self) -> "Interrupt":
        self._before = {kind: signal.signal(kind, self._note) for kind in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number

    def agreed(self, accelerator: Any) -> int:
        """Exit code when any process was asked to stop (128 + the signal's number), else 0.

        All processes have to ask at the same step, so that all stop after the same one.
        """
        asked = torch.tensor(float(self.number), device=accelerator.device)
        largest = accelerator.gather(asked.reshape(1)).max().item()
        return 128 + int(largest) if largest else 0
