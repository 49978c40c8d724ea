"""Differentially private training: DP-SGD (Abadi et al. 2016), with gradients and accounting by Opacus.

Each photo joins a step by a chance of its own, its gradient over all parameters is clipped, and Gaussian
noise is added to the sum. Who joins, the noise, and what is drawn for a photo depend on the run's secret and
the step alone, so a checkpoint, which holds the secret, is resumed exactly. A public seed would void the
guarantee: with it, anybody could draw the noise again and take it off.
"""

import functools
import hashlib
import importlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from finetune.config import TrainLora
from finetune.models.family import Family
from finetune.step.batches import TrainingData, draw_each
from finetune.step.objective import Objective
from finetune.training.learner import Learner
from finetune.training.loop import Step, mean_loss, optimizer_step, set_learning_rate
from orchard.adapters.privacy import Privacy
from orchard.cli import cli
from orchard.errors import UserError
from orchard.images.splits import stable_hash

ACCOUNTANT = "prv"
HIGHEST_DELTA = 1e-5
"""Where none is given; below it for large sets."""


def require_package(epsilon: float) -> None:
    """Raise `UserError` where privacy is wanted and Opacus is not there."""
    if epsilon:
        try:
            importlib.import_module("opacus")
        except ImportError as error:
            raise UserError(f"--dp_epsilon {epsilon:g}: needs `pip install opacus` ({error})") from None


def budget(config: TrainLora, count: int, name: str) -> Privacy | None:
    """What an adapter of ``count`` photos is promised by resolved options; None without privacy.

    Raises:
        UserError: delta is too large for so few photos, or no noise gives the epsilon.
    """
    if not config.dp_epsilon:
        return None
    from opacus import __version__

    delta = config.dp_delta or min(HIGHEST_DELTA, 1 / (10 * count))
    cli.check(
        delta < 1 / count,
        f"--dp_delta {delta:g}: must be below 1 / {count}, the photos of {name}, or publishing one of them "
        f"would count as private; give {1 / (10 * count):.1g}",
    )
    rate = min(1.0, config.batch_size * config.accumulation / count)
    multiplier, epsilon = _noise_multiplier(config.dp_epsilon, delta, rate, config.steps)
    return Privacy(
        epsilon=epsilon,
        delta=delta,
        noise_multiplier=multiplier,
        max_grad_norm=config.max_grad_norm,
        sample_rate=rate,
        steps=config.steps,
        accountant=ACCOUNTANT,
        opacus=__version__,
    )


@functools.cache
def _noise_multiplier(epsilon: float, delta: float, rate: float, steps: int) -> tuple[float, float]:
    """The least noise that keeps below ``epsilon``, as Opacus finds it, and the epsilon that it gives."""
    from opacus.accountants import create_accountant
    from opacus.accountants.utils import get_noise_multiplier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of orders and of log(0), which its bounds allow for
        try:
            multiplier = get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=rate,
                steps=steps,
                accountant=ACCOUNTANT,
            )
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"--dp_epsilon {epsilon:g}: Opacus finds no noise for it with delta {delta:.2g}, {steps} "
                f"steps and a sample rate of {rate:.3g} ({error}); give a larger one, such as 1"
            ) from None
        accountant: Any = create_accountant(mechanism=ACCOUNTANT)
        accountant.history = [(multiplier, rate, steps)]
        return float(multiplier), float(accountant.get_epsilon(delta=delta))


def uniform(secret: bytes, purpose: str, step: int, count: int) -> np.ndarray:
    """(count,) float64, uniform in (0, 1), that nobody can tell from chance without the secret.

    From SHAKE-256, since generators of torch and numpy are not made to keep their seeds.
    """
    stream = hashlib.shake_256(secret + f"{purpose}:{step}".encode()).digest(8 * count)
    # 52 bits and a half: with more, the largest would round to 1.
    return ((np.frombuffer(stream, dtype="<u8") >> 12) + 0.5) / 2**52


def sampled(secret: bytes, step: int, count: int, rate: float) -> list[int]:
    """Which of ``count`` photos join a step, each with the chance ``rate``."""
    return np.flatnonzero(uniform(secret, "photos", step, count) < rate).tolist()


def gaussian(secret: bytes, step: int, like: Sequence[Tensor]) -> list[Tensor]:
    """Standard normal noise for a step, of the shapes, types and devices of ``like``."""
    sizes = [one.numel() for one in like]
    drawn = torch.special.ndtri(torch.from_numpy(uniform(secret, "noise", step, sum(sizes))))
    return [part.view(one.shape).to(one) for part, one in zip(drawn.split(sizes), like, strict=True)]


@contextmanager
def per_photo_gradients(network: torch.nn.Module) -> Iterator[None]:
    """Inside, the backward pass of a mean loss leaves each photo's gradient, (B, ...), in `grad_sample`."""
    from opacus.grad_sample.grad_sample_module import GradSampleHooks

    class Hooks(GradSampleHooks):
        def rearrange_grad_samples(self, **options: Any) -> tuple[list[Tensor], Tensor]:
            activations, gradients = super().rearrange_grad_samples(**options)
            # Opacus 1.6 unfolds inputs of convolutions as if they were contiguous, which Sana's are not.
            return [one.contiguous() for one in activations], gradients

    hooks = Hooks(network)
    try:
        yield
    finally:
        hooks.cleanup()


@torch.no_grad()
def clipped_sum(parameters: Sequence[Any], photos: int, max_grad_norm: float) -> list[Tensor]:
    """The sum of the photos' gradients, each clipped over all parameters together; takes them off these."""
    found = [
        torch.zeros_like(one).expand(photos, *one.shape)
        if one.grad_sample is None
        else one.grad_sample.float()
        for one in parameters
    ]
    assert all(len(one) == photos for one in found), [one.shape for one in found]
    norms = torch.stack([one.flatten(1).norm(dim=1) for one in found]).norm(dim=0)
    factors = (max_grad_norm / (norms + 1e-6)).clamp(max=1)
    for one in parameters:
        one.grad_sample = one.grad = None
    return [torch.einsum("b,b...->...", factors, one) for one in found]


def private_steps(
    family: Family,
    data: TrainingData,
    learner: Learner,
    config: TrainLora,
    accelerator: Accelerator,
    start: int = 0,
    *,
    privacy: Privacy,
) -> Iterator[Step]:
    """As `loop.train_steps`, with ``privacy``; the loss of a step is over the expected number of photos.

    Raises:
        FloatingPointError: the loss is not finite; names the images of the batch.
    """
    assert learner.secret is not None
    secret, count = bytes(learner.secret.tolist()), len(data.photos)
    expected = privacy["sample_rate"] * count
    deviation = privacy["noise_multiplier"] * privacy["max_grad_norm"]
    learner.train()
    with per_photo_gradients(learner.network):
        for index in range(start, config.steps):
            rate = set_learning_rate(learner.optimizer, config, index)
            rows = sampled(secret, index, count, privacy["sample_rate"])
            total, loss = [torch.zeros_like(one) for one in learner.parameters], 0.0
            for first in range(0, len(rows), config.batch_size):  # none at all where nobody joins
                some = rows[first : first + config.batch_size]
                loss += len(some) * _backward(family, data, learner, config, accelerator, index, some)
                clipped = clipped_sum(learner.parameters, len(some), privacy["max_grad_norm"])
                torch._foreach_add_(total, clipped)
            noise = gaussian(secret, index, total)
            for parameter, gradient, drawn in zip(learner.parameters, total, noise, strict=True):
                parameter.grad = (gradient + deviation * drawn) / expected
            optimizer_step(learner.optimizer)
            learner.update_average()
            yield Step(index=index, loss=loss / expected, learning_rate=rate)


def _backward(
    family: Family,
    data: TrainingData,
    learner: Learner,
    config: TrainLora,
    accelerator: Accelerator,
    index: int,
    rows: Sequence[int],
) -> float:
    """The mean loss of some photos in step ``index``, whose gradients it leaves behind."""
    assert learner.secret is not None
    batch = draw_each(
        data.photos,
        rows,
        index,
        seed=stable_hash("photos", bytes(learner.secret.tolist()).hex()),
        flip=config.flip,
        noise_offset=config.noise_offset,
        caption_dropout=config.caption_dropout,
    )
    with accelerator.autocast():
        loss = family.loss(learner.network, batch, Objective.of(config))
    with warnings.catch_warnings():
        # The first layers' inputs need no gradients, which is no mistake.
        warnings.filterwarnings("ignore", "Full backward hook is firing")
        loss.backward()
    return mean_loss(loss, accelerator, index, [data.files[row] for row in rows])
