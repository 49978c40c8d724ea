"""One classifier from several processes: each computes a part of every batch."""

from contextlib import AbstractContextManager, nullcontext
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
class Part:
    """What this process computes of a batch: rows ``rank``, ``rank + count``, and so on."""

    rank: int = 0
    count: int = 1
    """Processes."""

    def require_equal(self, batch_size: int) -> None:
        """Raise `UserError` unless all processes have as many images of a batch, one or more."""
        fitting = batch_size - batch_size % self.count or self.count
        cli.check(
            batch_size == fitting,
            f"--batch_size {batch_size}: cannot be divided among {self.count} processes; use {fitting}, or a "
            f"larger multiple of {self.count}",
        )

    def of(self, rows: Tensor) -> Tensor:
        """(B, …) -> (B / count, …)."""
        return rows[self.rank :: self.count]

    def data_parallel(self, model: nn.Module) -> nn.Module:
        """``model``, whose gradients are the mean over the processes."""
        return model if self.count == 1 else DistributedDataParallel(model)

    def summed(self, loss: Tensor) -> Tensor:
        """A scalar's sum over the processes, without its gradient."""
        total = loss.detach().clone()
        if self.count > 1:
            dist.all_reduce(total)
        return total

    def normalising(self) -> AbstractContextManager[Any]:
        """Within it batch norm takes its statistics from the whole batch."""
        return nullcontext() if self.count == 1 else _WholeBatches(self.count)


WHOLE = Part()


class _Sum(torch.autograd.Function):
    """The sum over all processes; a gradient is summed as well, since all of them use the sum."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Those of this process -> the sum."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The gradient of the sum in this process -> that of its values."""
        return _Sum.forward(ctx, gradients[0].contiguous())


class _WholeBatches(TorchFunctionMode):
    """Batch norm over the parts of all processes, which are of one size.

    Not torch's `SyncBatchNorm`: it needs a GPU, and its conversion takes the activation out of timm's layers.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is functional.batch_norm and kwargs["training"]:
            return self._batch_norm(*args, **kwargs)
        return function(*args, **kwargs)

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
        variance, mean = torch.var_mean(exact, others, correction=0)
        # Squares about a point near the mean, for their precision: parts send their sums in one message.
        near = torch.zeros_like(mean) if running_mean is None else running_mean.clone()
        mean, square = _Sum.apply(torch.stack([mean, variance + (mean - near).square()])) / self.count
        variance = square - (mean - near).square()
        if running_mean is not None and running_variance is not None:
            samples = self.count * values.numel() / values.shape[1]
            with torch.no_grad():
                running_mean.lerp_(mean, momentum)
                running_variance.lerp_(variance * (samples / (samples - 1)), momentum)
        scale = (variance + eps).rsqrt()
        scale = scale if weight is None else scale * weight
        found = (exact - mean.view(shape)) * scale.view(shape)
        found = found if bias is None else found + bias.view(shape)
        return found.to(values.dtype)
