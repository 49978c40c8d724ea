"""Small plans and what a sampler makes of them."""

from typing import Any

import numpy as np

from generate.planning.plan import ClassPlan, Row
from generate.planning.settings import Settings
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
    usual = {"scheduler": "base", "steps": 3, "guidance": 2.0, "strength": None, "resolution": 32}
    return Settings(**usual | options)


def sampled(pipe: Any, plan: ClassPlan, *, batch_size: int = 2, depth: int = 1, **options: Any):
    """The plan's images as integers, (32, 32, 3) each."""
    sampler = Sampler(pipe, settings(**options), batch_size=batch_size, depth=depth)
    (shard,) = plan.shards(max(plan.count, 1))
    return [np.asarray(image, dtype=int) for _, image in sampler.sample(shard.batches(batch_size))]
