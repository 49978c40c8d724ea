"""Ways of mixing two sources of training images: which rows a step takes, and what they weigh."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from classify.config import MixingName

FIRST_SHARE = 0.5
"""Share of the steps that `synthetic_first` spends on synthetic images."""
WEIGHTED = ("weight", "batch")


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """One way of mixing, with its parameter."""

    name: MixingName = "union"
    real_weight: float = 0.8
    """Above 0, below 1; only `weight` and `batch` use it."""

    @property
    def label(self) -> str:
        """``weight 0.8``, or the name alone where the weight plays no part."""
        return f"{self.name} {self.real_weight:g}" if self.name in WEIGHTED else self.name


UNION = Mixing()


def row_stream(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless (batch_size,) rows from one shuffled epoch after the other; batches may span epochs."""
    rows = torch.empty(0, dtype=torch.int64)
    while True:
        while len(rows) < batch_size:
            rows = torch.cat([rows, torch.randperm(count, generator=generator)])
        yield rows[:batch_size]
        rows = rows[batch_size:]


def rows_of(
    mixing: Mixing, labels: Tensor, real: int, batch_size: int, steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Endless (batch_size,) rows of (N,) ``labels``, of which the first ``real`` are real images.

    - ``union``, ``weight``: every image once an epoch;
    - ``batch``: ``real_weight`` of each batch is real, at least one image of each source;
    - ``synthetic_first``: synthetic images for the first half of the steps, then real ones.
    """
    everything = len(labels)
    synthetic = everything - real
    if not real or not synthetic or mixing.name in ("union", "weight"):
        yield from row_stream(everything, batch_size, generator)
    elif mixing.name == "batch":
        share = min(max(round(mixing.real_weight * batch_size), 1), batch_size - 1)
        for first, second in zip(
            row_stream(real, share, generator),
            row_stream(synthetic, batch_size - share, generator),
            strict=False,
        ):
            yield torch.cat([first, second + real])
    else:
        first_steps = round(FIRST_SHARE * steps)
        for rows in islice(row_stream(synthetic, batch_size, generator), first_steps):
            yield rows + real
        yield from row_stream(real, batch_size, generator)


def weights_of(mixing: Mixing, is_real: Tensor) -> Tensor | None:
    """(B,) whether a row is real -> (B,) weights of its loss, which sum to 1; None where all weigh the same.

    ``weight``: real images weigh ``real_weight`` together and synthetic ones the rest, whatever their
    numbers in the batch, as DataDream has it (Kim et al. 2024); one source alone weighs 1.
    """
    count = int(is_real.sum())
    if mixing.name != "weight" or count in (0, len(is_real)):
        return None
    synthetic = (1 - mixing.real_weight) / (len(is_real) - count)
    return torch.where(is_real, mixing.real_weight / count, synthetic)
