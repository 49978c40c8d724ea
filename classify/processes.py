"""One classifier from several processes: each computes a share of every batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from orchard.cli import cli


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of every batch that this process computes: rows ``rank``, ``rank + count``, and so on."""

    rank: int = 0
    count: int = 1

    def require_whole(self, batch_size: int) -> None:
        """Raise `UserError` unless all processes have as many images of a batch, at least two."""
        fewest = 2 * self.count
        fitting = max(fewest, batch_size - batch_size % self.count)
        cli.check(
            batch_size == fitting,
            f"--batch_size {batch_size}: cannot be shared by {self.count} processes; use {fitting}, or "
            f"another multiple of {self.count}",
        )

    def of(self, rows: Tensor) -> Tensor:
        """(B, …) -> (B / count, …)."""
        return rows[self.rank :: self.count]

    def joined(self, model: nn.Module) -> nn.Module:
        """``model``, whose gradients are the sum over the processes divided by their number."""
        return model if self.count == 1 else DistributedDataParallel(model, forward_sync_buffers=False)

    def total(self, loss: Tensor) -> Tensor:
        """The sum of each process's scalar, without its gradient."""
        found = loss.detach().clone()
        if self.count > 1:
            dist.all_reduce(found)
        return found

    @contextmanager
    def normalising(self) -> Iterator[None]:
        """Within it batch norm takes its statistics from the whole batch."""
        if self.count == 1:
            yield
            return
        with _WholeBatches(self.count):
            yield


ALONE = Share()


class _Sum(torch.autograd.Function):
    """The sum over all processes; a gradient is summed as well, since all of them use the sum."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(context, gradients[0].contiguous())


class _WholeBatches(TorchFunctionMode):
    """Batch norm over the parts of all processes, which are of one size.

    Not torch's `SyncBatchNorm`: it needs a GPU, and its conversion takes the activation out of timm's layers.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), words: Any = None) -> Any:
        words = words or {}
        if function is functional.batch_norm and words["training"]:
            return self._batch_norm(*arguments, **words)
        return function(*arguments, **words)

    def _batch_norm(
        self,
        values: Tensor,
        running_mean: Tensor | None,
        running_variance: Tensor | None,
        *,
        weight: Tensor | None,
        bias: Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
    ) -> Tensor:
        """As `functional.batch_norm` in training: (B / count, C, …) -> the same shape."""
        exact = values.to(torch.promote_types(values.dtype, torch.float32))
        others = [place for place in range(values.ndim) if place != 1]
        shape = [-1 if place == 1 else 1 for place in range(values.ndim)]
        mean = _Sum.apply(exact.mean(others)) / self.count
        centred = exact - mean.view(shape)
        variance = _Sum.apply(centred.square().mean(others)) / self.count
        if running_mean is not None and running_variance is not None:
            samples = self.count * values.numel() / values.shape[1]
            with torch.no_grad():
                running_mean.lerp_(mean, momentum)
                running_variance.lerp_(variance * (samples / (samples - 1)), momentum)
        scale = (variance + eps).rsqrt()
        scale = scale if weight is None else scale * weight
        found = centred * scale.view(shape)
        found = found if bias is None else found + bias.view(shape)
        return found.to(values.dtype)
