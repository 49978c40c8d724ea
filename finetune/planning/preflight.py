"""Checks before any weight is loaded: image sizes, what the cache holds, disk space, precision."""

import functools
import math
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.filesize import decimal

from finetune.config import TrainLora
from finetune.context import Job, Plan
from finetune.data import encoded_cache, training_data
from finetune.data.encoded_cache import PHOTOS, Key
from finetune.data.training_set import Sizes
from finetune.models import methods, words
from finetune.models.targets import Targets
from finetune.planning import memory
from finetune.step import buckets
from finetune.training.optimizers import KINDS
from orchard import devices
from orchard.adapters import layers
from orchard.adapters.merged import MOST_RANK
from orchard.adapters.provenance import FULL
from orchard.bases import bases, prompt_embeds
from orchard.bases.bases import Base
from orchard.cli import cli
from orchard.errors import UserError

AUTO, NONE = "auto", "none"
VARIABLE = "ORCHARD_CACHE"


FLOAT = 4
"""Bytes of a float32: the type of stored latents, prompt embeddings, weights and optimiser states."""
TOKENS = {"sd": 77, "sdxl": 77, "sd3": 77 + 256, "sana": 300}
"""Tokens of a prompt, by family; those of T5 come after CLIP's."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes to be written below a folder."""

    what: str
    option: str
    """The option that names the folder."""
    folder: Path
    size: int


def check(config: TrainLora, plan: Plan, device: torch.device) -> list[str]:
    """Look at everything the unfinished jobs of a plan need; lines about what was found.

    Raises:
        UserError: the disk lacks the space.
    """
    jobs, cache = plan.unfinished, plan.cache
    needed = _needed_entries(config, plan, jobs)
    missing = [key for key in needed if cache and not encoded_cache.path_of(cache, key).is_file()]
    needs = _needs(config, plan, missing)
    require_space(needs)
    trained = _parameters(config, plan.base, plan.targets)
    return [
        *(_bucket_line(needed) if config.buckets else []),
        _cache_line(cache, needed, missing),
        _disk_line(needs),
        memory.line(config, memory.phases(config, plan.base, plan.precision, trained), device),
        f"device    {device.type}, which computes in {', '.join(devices.precisions(device))}",
    ]


def cache_folder(option: str) -> Path | None:
    """The folder that ``--cache`` stands for.

    The user's cache folder rather than the output, since runs with other options encode the same photos.
    """
    if option == NONE:
        return None
    if option != AUTO:
        return Path(option).expanduser()
    named = os.environ.get(VARIABLE)
    return Path(named or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "orchard").expanduser()


def encoded_sizes(base: Base, sizes: Sizes, *, bucketed: bool) -> Sizes:
    """(height, width) at which each photo is encoded, for their ``sizes`` on disk.

    Raises:
        UserError: the base is too small for buckets.
    """
    if not bucketed:
        return dict.fromkeys(sizes, (base.resolution, base.resolution))
    cli.check(
        base.resolution >= buckets.LEAST,
        f"--buckets: {base.name} has {base.resolution} px, shapes begin at {buckets.LEAST}; leave it out",
    )
    choices = buckets.sizes(base.resolution)
    return {name: buckets.nearest(size, choices) for name, size in sizes.items()}


def _needed_entries(config: TrainLora, plan: Plan, jobs: Sequence[Job]) -> list[Key]:
    """Keys of everything that is to be encoded, each once."""
    photos = {photo.sha256: photo for job in jobs for photo in job.encoded}
    prompts: set[tuple[str, int]] = set()
    for job in jobs:
        said = training_data.prompts(config, job)
        chunks = prompt_embeds.chunks(plan.base, said, words.counts(config, job.classes))
        prompts |= {(prompt, chunks) for prompt in said}
    return [
        *map(plan.keys.photo, photos.values()),
        *(plan.keys.prompt(prompt, chunks) for prompt, chunks in sorted(prompts)),
    ]


def _cache_line(cache: Path | None, needed: Sequence[Key], missing: Sequence[Key]) -> str:
    if cache is None:
        return "cache     none: photos and prompts are encoded for this run alone"
    absent = Counter(key["kind"] for key in missing)
    kinds = Counter(key["kind"] for key in needed).items()
    present = " and ".join(f"{count - absent[kind]} of {count} {kind}" for kind, count in kinds)
    return f"cache     {cache} has {present or 'nothing to give'}"


def _needs(config: TrainLora, plan: Plan, missing: Sequence[Key]) -> list[Need]:
    base, jobs = plan.base, plan.unfinished
    sampled = config.prior_weight and not config.prior_data
    images = config.prior_count * sum(len(job.classes) for job in jobs) if sampled else 0
    size = adapter_bytes(config, base, plan.targets, len(jobs)) + prior_bytes(base, images)
    needs = [Need(what="adapters and checkpoints", option="--output", folder=config.output, size=size)]
    if plan.cache is not None:
        size = sum(entry_bytes(base, key) for key in missing)
        needs.append(Need(what="encoded photos and prompts", option="--cache", folder=plan.cache, size=size))
    return needs


def _disk_line(needs: Sequence[Need]) -> str:
    parts = (f"{need.what} {decimal(need.size)} of {decimal(free_bytes(need.folder))} free" for need in needs)
    return f"disk      {'; '.join(parts)}"


def _bucket_line(keys: Sequence[Key]) -> list[str]:
    """How many photos have which shape."""
    found = Counter(tuple(key["size"]) for key in keys if key["kind"] == PHOTOS)
    shapes = (f"{width}x{height} {count}" for (height, width), count in sorted(found.items()))
    return [f"buckets   {', '.join(shapes)} (width x height, photos)"]


def entry_bytes(base: Base, key: Key) -> int:
    """Bytes of a cache entry: the posteriors of a photo and its mirror image, or a prompt's embeddings.

    Of a base that inpaints also the masks of both, a byte per cell, and the posteriors of what each leaves.
    """
    if key["kind"] == PHOTOS:
        masks, (_, height, width) = len(key.get("masks", ())), _shape(base, *key["size"])
        return 4 * (1 + masks) * _latents(base, key["size"]) + 2 * masks * height * width
    # One row per token, and one for the pooled embeddings.
    return FLOAT * (TOKENS[base.family] * key.get("chunks", 1) + 1) * base.cross_attention_dim


def _latents(base: Base, size: Sequence[int]) -> int:
    return FLOAT * math.prod(_shape(base, *size))


@functools.lru_cache(maxsize=64)
def _shape(base: Base, height: int, width: int) -> tuple[int, int, int]:
    """`bases.latent_shape`, which reads a file."""
    return bases.latent_shape(base, (height, width))


def prior_bytes(base: Base, images: int) -> int:
    """Bytes of so many prior images, stored as latents."""
    return images * _latents(base, (base.resolution, base.resolution))


def adapter_bytes(config: TrainLora, base: Base, targets: Targets, jobs: int) -> int:
    """Bytes of ``jobs`` adapters or pipelines and their checkpoints, plus one while it is being written."""
    weights = FLOAT * _parameters(config, base, targets)
    due = (config.steps - 1) // config.save_every if config.save_every else 0
    kept = min(due, config.keep) if config.keep else due
    export = weights if config.export == "kohya" else 0
    if config.export == "merged":
        export = FLOAT * _parameters(replace(config, method="lora", rank=MOST_RANK), base, targets)
    state = 1 + KINDS[config.optimizer].state_per_weight + bool(config.ema_decay)
    checkpoints = (kept * jobs + 1) * state
    rest = jobs * bases.weights_bytes(base) if config.method == FULL else 0
    return weights * (jobs + checkpoints) + export * jobs + rest


def _parameters(config: TrainLora, base: Base, targets: Targets) -> int:
    """Weights that learn for one job."""
    return methods.parameters(config, layers.skeleton(base.folder), base.family, targets)


def require_space(needs: Sequence[Need]) -> None:
    """Raise `UserError` with both numbers where needs on one disk are together more than is free there."""
    disks: dict[int, list[Need]] = {}
    for need in needs:
        disks.setdefault(_existing(need.folder).stat().st_dev, []).append(need)
    for wanted in disks.values():
        size, left = sum(need.size for need in wanted), free_bytes(wanted[0].folder)
        if size > left:
            parts = "; ".join(
                f"{need.option} {need.folder}: {need.what}, {decimal(need.size)}" for need in wanted
            )
            raise UserError(
                f"the run needs {decimal(size)} of disk space, {decimal(left)} are free ({parts}); make "
                "room, lower --keep, or name a folder on another disk"
            )


def free_bytes(folder: Path) -> int:
    """Bytes free where ``folder`` lies or will lie."""
    return shutil.disk_usage(_existing(folder)).free


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    path = folder.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
