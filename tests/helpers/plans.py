"""Small plans and what a sampler makes of them."""

from dataclasses import replace
from typing import Any

import numpy as np

from generate.planning.plan import ClassPlan, Row
from generate.planning.ranges import Range
from generate.planning.settings import Settings
from generate.planning.steering import Steering
from generate.sampling.sampler import Sampler

PROMPT = "a photo of apple"


def class_plan(label: str = "apple", *, count: int = 4, seed: int = 0, **options: Any) -> ClassPlan:
    """A class that has one prompt unless ``prompts`` are given."""
    return ClassPlan(label=label, seed=seed, count=count, **{"prompts": (PROMPT,)} | options)


def rows(plan: ClassPlan) -> list[Row]:
    """Every row of the class."""
    return [plan.row(index) for index in range(plan.count)]


def settings(**options: Any) -> Settings:
    """Three steps of the base's own scheduler for 32 px, unless told otherwise."""
    return Settings(**{"scheduler": "base", "steps": 3, "resolution": 32} | options)


def led(**options: Any) -> Steering:
    """Steering by single numbers, or by ranges."""
    numbers = ("guidance", "strength")
    found = {
        name: Range(value, value) if name in numbers and not isinstance(value, Range) else value
        for name, value in options.items()
    }
    return Steering(**found)


def sampled(pipe: Any, plan: ClassPlan, *, batch_size: int = 2, depth: int = 1, **options: Any):
    """The plan's images as integers, (32, 32, 3) each, by options of settings and of steering."""
    numbers = {name: options.pop(name) for name in ("guidance", "strength") if name in options}
    plan = replace(plan, steering=led(**numbers)) if numbers else plan
    sampler = Sampler(pipe, settings(**options), batch_size=batch_size, depth=depth)
    (shard,) = plan.shards(max(plan.count, 1))
    found = sampler.sample(shard.batches(batch_size))
    return [np.asarray(image, dtype=int) for _, image in sorted(found, key=lambda pair: pair[0].index)]
