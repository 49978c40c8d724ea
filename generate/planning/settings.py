"""How rows are sampled, with the defaults that depend on the base filled in."""

from dataclasses import dataclass

from generate.config import Generate
from generate.sampling.schedulers import require_scheduler
from orchard.bases import usual
from orchard.bases.bases import Base
from orchard.bases.prompt_embeds import STOCK, Reading
from orchard.errors import UserError
from orchard.shards import LARGEST

LCM = usual.Sampling(steps=4, guidance=1.0, scheduler="lcm", source="--lcm")
BYTES = 4
"""A pixel of an image and its share of all else in a row, at most: PNG makes noise no larger than it is."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the rows of one base have in common."""

    scheduler: str
    steps: int
    resolution: int
    """Side of the images, in pixels."""
    contrast: float = 0.0
    """Weight of the other class's prompt in what guidance leads away from."""
    reading: Reading = STOCK
    """How prompts are read."""


def usual_sampling(config: Generate, base: Base) -> usual.Sampling:
    """What options that are left out stand for."""
    return LCM if config.lcm else usual.sampling(base)


def resolve(config: Generate, base: Base) -> Settings:
    """The settings for ``base``.

    Raises:
        UserError: the scheduler is not for the base, or shards would be larger than readers take.
    """
    left_out = usual_sampling(config, base)
    settings = Settings(
        scheduler=config.scheduler or left_out.scheduler,
        steps=config.steps or left_out.steps,
        resolution=base.resolution,
        contrast=config.contrast,
    )
    require_shards(config.shard_size, base.resolution)
    require_scheduler(settings.scheduler, settings.steps, base)
    return settings


def require_shards(size: int, resolution: int) -> None:
    """Raise `UserError` where shards of so many images would be larger than readers take."""
    most = LARGEST // (BYTES * resolution**2)
    if size > most:
        raise UserError(
            f"--shard_size {size}: of {resolution} px a shard with over {most} images may be too large to be "
            "read; give fewer"
        )
