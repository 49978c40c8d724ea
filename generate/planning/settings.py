"""How rows are sampled, with the defaults that depend on the base filled in."""

from dataclasses import dataclass

from generate.config import Generate
from generate.planning import repainting
from generate.sampling.schedulers import require_scheduler
from orchard.bases.bases import Base
from orchard.errors import UserError
from orchard.shards import LARGEST

STEPS, USUAL_STEPS, LCM_STEPS = 20, {"mini": 10}, 4
BYTES = 4
"""A pixel of an image and its share of all else in a row, at most: PNG makes noise no larger than it is."""
GUIDANCE, LCM_GUIDANCE, STRENGTH = 2.0, 1.0, 0.7


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Scheduler, number of steps and guidance of one base's rows."""

    scheduler: str
    steps: int
    guidance: float
    strength: float | None
    """Share of a guiding image that is replaced; None without such images."""
    resolution: int
    """Side of the images, in pixels."""


def resolve(config: Generate, base: Base) -> Settings:
    """The settings for ``base``.

    Raises:
        UserError: the scheduler is not for the base, the strength leaves no step to sample, or shards would
            be larger than readers take.
    """
    usual = LCM_STEPS if config.lcm else USUAL_STEPS.get(base.name, STEPS)
    usual_guidance = repainting.GUIDANCE if config.repaint else GUIDANCE
    if config.lcm:
        usual_guidance = LCM_GUIDANCE
    usual_strength = repainting.least_strength(config.repaint) if config.repaint else STRENGTH
    strength = usual_strength if config.strength is None else config.strength
    settings = Settings(
        scheduler=config.scheduler or ("lcm" if config.lcm else "dpmsolver++"),
        steps=config.steps or usual,
        guidance=usual_guidance if config.guidance is None else config.guidance,
        strength=strength if config.image_guidance else None,
        resolution=base.resolution,
    )
    _require_shards(config.shard_size, base.resolution)
    require_scheduler(settings.scheduler, settings.steps, base)
    if (config.image_guidance or config.repaint) and int(settings.steps * strength) < 1:
        raise UserError(f"--strength {strength}: of {settings.steps} steps none is left; give more of either")
    return settings


def _require_shards(size: int, resolution: int) -> None:
    most = LARGEST // (BYTES * resolution**2)
    if size > most:
        raise UserError(
            f"--shard_size {size}: of {resolution} px a shard with over {most} images may be too large to be "
            "read; give fewer"
        )
