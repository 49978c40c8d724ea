"""A loss scaler on the CPU whose gradients overflow when they are told to."""

from typing import Any

import torch


class Overflowing(torch.amp.GradScaler):
    """Finds gradients too large at some optimiser steps, counted from 1, and so skips these."""

    def __init__(self, *steps: int) -> None:
        super().__init__("cpu")
        self.steps, self.count = steps, 0

    def _unscale_grads_(self, *arguments: Any) -> dict[torch.device, torch.Tensor]:
        self.count += 1
        found = super()._unscale_grads_(*arguments)
        for flag in found.values():
            flag.fill_(float(self.count in self.steps))
        return found
