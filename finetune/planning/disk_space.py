"""Space on disk that a run will take, told before it starts, against what is free."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from finetune.config import TrainLora
from finetune.data.encoded_cache import PHOTOS, Key
from finetune.models import lora
from finetune.models.targets import Targets
from finetune.training.optimizers import KINDS
from orchard.adapters import layers
from orchard.bases import components
from orchard.bases.bases import Base
from orchard.errors import UserError

FLOAT = 4
"""Bytes of a float32, which is what is kept of latents, states, weights and optimisers."""
TOKENS = {"sd": 77, "sdxl": 77, "sd3": 77 + 256}
"""Rows of a prompt's states, by family; those of T5 come after CLIP's."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes to be written below a folder."""

    what: str
    option: str
    """The option that names the folder."""
    folder: Path
    size: int


def entry(base: Base, key: Key) -> int:
    """Bytes of an entry: mean and deviation of a photo and its mirror image, or a prompt's states at most."""
    if key["kind"] == PHOTOS:
        return 4 * _latents(base, key["size"])
    # A row a token, and one for the pooled states.
    return FLOAT * (TOKENS[base.family] + 1) * base.cross_attention_dim


def _latents(base: Base, size: Sequence[int]) -> int:
    return FLOAT * math.prod(components.latent_shape(base, size))


def prior_pictures(config: TrainLora, base: Base, classes: int) -> int:
    """Bytes of the base's own pictures of ``classes`` classes, kept as latents."""
    if not config.prior_weight:
        return 0
    return classes * config.prior_count * _latents(base, (base.resolution, base.resolution))


def adapters(config: TrainLora, base: Base, targets: Targets, jobs: int) -> int:
    """Bytes of ``jobs`` adapters and their checkpoints, one more than is kept while it is written."""
    weights = FLOAT * _parameters(config, base, targets)
    due = (config.steps - 1) // config.save_every if config.save_every else 0
    kept = min(due, config.keep) if config.keep else due
    files = 2 if config.export == "kohya" else 1
    state = 1 + KINDS[config.optimizer].kept + bool(config.ema_decay)
    checkpoints = (kept * jobs + 1) * state
    return weights * (files * jobs + checkpoints)


def _parameters(config: TrainLora, base: Base, targets: Targets) -> int:
    """Weights of one adapter."""
    pipe = layers.skeleton(base.folder)
    shape = (config.rank, config.rank, config.seed)
    found = [lora.inject(getattr(pipe, place), *shape, own, config.method) for place, own in targets.items()]
    return sum(parameter.numel() for parameters in found for parameter in parameters)


def require(needs: Sequence[Need]) -> None:
    """Raise `UserError` with both numbers where needs on one disk are together more than is free there."""
    disks: dict[int, list[Need]] = {}
    for need in needs:
        disks.setdefault(_existing(need.folder).stat().st_dev, []).append(need)
    for wanted in disks.values():
        size, left = sum(need.size for need in wanted), free(wanted[0].folder)
        if size > left:
            parts = "; ".join(
                f"{need.option} {need.folder}: {need.what}, {decimal(need.size)}" for need in wanted
            )
            raise UserError(
                f"the run needs {decimal(size)} of disk space, {decimal(left)} are free ({parts}); make "
                "room, lower --keep, or name a folder on another disk"
            )


def free(folder: Path) -> int:
    """Bytes free where ``folder`` lies or will lie."""
    return shutil.disk_usage(_existing(folder)).free


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    path = folder.absolute()
    return next(place for place in (path, *path.parents) if place.exists())
