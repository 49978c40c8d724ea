"""What can be told before any weight is loaded: shapes, what the cache has, disk space, precision."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from finetune.config import TrainLora
from finetune.context import Job
from finetune.data import encoded_cache
from finetune.data.encoded_cache import PHOTOS, Key, Keys, keys_of
from finetune.data.training_data import prompt_of
from finetune.data.training_set import Sizes
from finetune.models.targets import Targets
from finetune.planning import disk_space
from finetune.planning.disk_space import Need
from finetune.training import buckets
from orchard import devices, prompt_template
from orchard.bases.bases import Base
from orchard.cli import cli
from orchard.files import atomic

AUTO, NONE = "auto", "none"
VARIABLE = "ORCHARD_CACHE"


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What a run may rely on."""

    output: Path
    cache: Path | None
    """Folder of encoded photos and prompts; None keeps none."""
    keys: Keys
    precision: str
    lines: Sequence[str]
    """What the plan says of it."""

    def make_folders(self) -> None:
        """Make output and cache; raise `UserError` when one cannot be written to."""
        atomic.writable(self.output)
        if self.cache is not None:
            atomic.writable(self.cache, "--cache")


def check(
    config: TrainLora,
    base: Base,
    targets: Targets,
    jobs: Sequence[Job],
    sizes: Sizes,
    precision: str,
    device: Any,
) -> Preflight:
    """Look at everything ``jobs`` need; ``sizes`` are those of their photos as they are on disk.

    Raises:
        UserError: the base has no buckets, or the disk has not the space.
    """
    shapes = _shapes(config, base, sizes)
    keys = keys_of(base, precision, device.type, shapes, config.fit)
    cache = cache_folder(config.cache)
    wanted = _wanted(config, keys, jobs)
    missing = [key for key in wanted if cache and not encoded_cache.path_of(cache, key).is_file()]
    classes = sum(len(job.classes) for job in jobs)
    size = disk_space.adapters(config, base, targets, len(jobs)) + disk_space.prior_pictures(
        config, base, classes
    )
    needs = _needs(config, base, size, cache, missing)
    disk_space.require(needs)
    return Preflight(
        output=config.output,
        cache=cache,
        keys=keys,
        precision=precision,
        lines=[
            *_bucket_line(config, wanted),
            _cache_line(cache, wanted, missing),
            _disk_line(needs),
            f"device    {device.type}, which computes in {', '.join(devices.precisions(device))}",
        ],
    )


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


def _shapes(config: TrainLora, base: Base, sizes: Sizes) -> Sizes:
    """(height, width) at which each photo is encoded."""
    if not config.buckets:
        return dict.fromkeys(sizes, (base.resolution, base.resolution))
    cli.check(
        base.resolution >= buckets.LEAST,
        f"--buckets: {base.name} has {base.resolution} px, shapes begin at {buckets.LEAST}; leave it out",
    )
    choices = buckets.sizes(base.resolution)
    return {name: buckets.nearest(size, choices) for name, size in sizes.items()}


def _wanted(config: TrainLora, keys: Keys, jobs: Sequence[Job]) -> list[Key]:
    """Keys of everything that is to be encoded, each once."""
    photos = {photo.sha256: photo for job in jobs for photo in job.photos.photos}
    texts = {prompt_of(photo, config.prompt) for job in jobs for photo in job.photos.photos}
    if config.prior_weight:
        texts |= {prompt_template.fill(config.prior_prompt, name) for job in jobs for name in job.classes}
    return [*map(keys.photo, photos.values()), *map(keys.prompt, sorted(texts))]


def _cache_line(cache: Path | None, wanted: Sequence[Key], missing: Sequence[Key]) -> str:
    if cache is None:
        return "cache     none: photos and prompts are encoded for this run alone"
    absent = Counter(key["kind"] for key in missing)
    kinds = Counter(key["kind"] for key in wanted).items()
    there = " and ".join(f"{count - absent[kind]} of {count} {kind}" for kind, count in kinds)
    return f"cache     {cache} has {there or 'nothing to give'}"


def _needs(
    config: TrainLora, base: Base, size: int, cache: Path | None, missing: Sequence[Key]
) -> list[Need]:
    needs = [Need(what="adapters and checkpoints", option="--output", folder=config.output, size=size)]
    if cache is not None:
        size = sum(disk_space.entry(base, key) for key in missing)
        needs.append(Need(what="encoded photos and prompts", option="--cache", folder=cache, size=size))
    return needs


def _disk_line(needs: Sequence[Need]) -> str:
    parts = (
        f"{need.what} {decimal(need.size)} of {decimal(disk_space.free(need.folder))} free" for need in needs
    )
    return f"disk      {'; '.join(parts)}"


def _bucket_line(config: TrainLora, keys: Sequence[Key]) -> list[str]:
    """How many photos have which shape."""
    if not config.buckets:
        return []
    found = Counter(tuple(key["size"]) for key in keys if key["kind"] == PHOTOS)
    shapes = (f"{width}x{height} {count}" for (height, width), count in sorted(found.items()))
    return [f"buckets   {', '.join(shapes)} (width x height, photos)"]
