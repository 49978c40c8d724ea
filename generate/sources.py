"""What is to be sampled: one `Job` a class, with its adapter, base, prompt and origin."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generate.config import Generate
from generate.sampler import require_scheduler
from orchard import adapter, bases, prompts, run, sources
from orchard.adapter import Adapter
from orchard.bases import Base
from orchard.errors import UserError
from orchard.shards import Origin

STEPS, USUAL_STEPS = 20, {"mini": 10}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One class to sample."""

    label: str
    base: Base
    adapter: Adapter | None
    prompt: str
    origin: Origin


def jobs(config: Generate, precision: str) -> list[Job]:
    """Resolve adapters, bases and classes without loading a model.

    Raises:
        UserError: a file or class that is not there, a LoRA made for another base, a class twice, a
            scheduler that is not for the base.
    """
    found = [adapter.read(adapter.find(name)) for name in config.lora]
    for one in found:
        adapter.require_finite(one)
    if found:
        planned = [job for one in found for job in _of_adapter(config, one, precision)]
    else:
        planned = _untuned(config, precision)
    labels = [job.label for job in planned]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UserError(f"--lora: class {', '.join(twice)} is sampled by two adapters; give one of them")
    missing = sorted(set(config.classes) - set(labels))
    if missing:
        raise UserError(f"--classes {' '.join(missing)}: not among the adapters' classes {', '.join(labels)}")
    return planned


def _of_adapter(config: Generate, one: Adapter, precision: str) -> list[Job]:
    origin = one.provenance
    base = bases.resolve(config.base or (origin.base if origin else "mini"))
    adapter.require_fit(one, base)
    adapter.require_place(one, base)
    if origin is None:
        if not config.classes:
            raise UserError(f"--lora {one.path.name}: does not say its class; pass --classes NAME")
        classes, names = list(config.classes), list(sources.load(config.data, config.classes).classes)
    else:
        classes, names = origin.classes, origin.all_classes
    chosen = [name for name in classes if not config.classes or name in config.classes]
    prompt = config.prompt or (origin.prompt if origin else prompts.DEFAULT)
    return [_job(config, name, names, base, one, prompt, precision) for name in chosen]


def _untuned(config: Generate, precision: str) -> list[Job]:
    base = bases.resolve(config.base or "mini")
    names = sources.load(config.data, config.classes).classes
    prompt = config.prompt or prompts.DEFAULT
    return [_job(config, name, names, base, None, prompt, precision) for name in config.classes or names]


def _job(
    config: Generate,
    label: str,
    names: Sequence[str],
    base: Base,
    one: Adapter | None,
    prompt: str,
    precision: str,
) -> Job:
    run.require_distinct_files(names)
    steps = config.steps or USUAL_STEPS.get(base.name, STEPS)
    require_scheduler(config.scheduler, steps, base)
    arguments: dict[str, Any] = {
        "base": base.name,
        "base_digest": base.digest,
        "lora": one.digest if one else "",
        "lora_scale": one.scale if one else None,
        "prompt": prompts.fill(prompt, label),
        "steps": steps,
        "guidance": config.guidance,
        "scheduler": config.scheduler,
        "seed": config.seed,
        "precision": precision,
        "resolution": base.resolution,
        "shard_size": config.shard_size,
    }
    trained_on = (one.provenance.trained_on if one.provenance else None) if one else []
    origin = Origin(
        label=label,
        classes=list(names),
        arguments=arguments,
        trained_on=trained_on,
        versions=run.versions(),
        count=config.count,
    )
    return Job(label=label, base=base, adapter=one, prompt=arguments["prompt"], origin=origin)


def lora_name(path: Path | None) -> str:
    """How a plan calls the adapter."""
    return path.name if path else "none (untuned base)"
