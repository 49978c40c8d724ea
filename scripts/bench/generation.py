"""Rows through the stock pipeline as DataDream's script calls it, then with one change after another."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from bench import released
from bench.clock import Timing, timed
from generate.outputs import metadata
from generate.planning.plan import ClassPlan
from generate.planning.settings import Settings
from generate.planning.steering import GUIDANCE
from generate.sampling.sampler import Sampler
from generate.sampling.schedulers import scheduler_of
from orchard import shards
from orchard.bases import bases

STOCK_BATCH, STOCK_STEPS = 10, 50
"""As in DataDream's generate.py, which samples one prompt batch after another (guidance 2, as here)."""
BATCH = 16
PROMPT = "a photo of apple"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is measured."""

    base: str
    """A base by name, or `released.RANDOM`."""
    pixels: int
    """Side of the images of the random model."""
    rows: int
    steps: int
    """Sampling steps after the first change."""
    compile: bool
    """Measure the compiled denoiser too."""
    dtype: torch.dtype


def bench(setup: Setup) -> Table:
    """Images/s of each stage, the ratio to the one before and to the first, the denoiser's share of time."""
    table = Table("generate", "images/s", "ratio", "to stock", "in the denoiser")
    speeds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        stages = list(_stages(setup, Path(folder)))
    for name, timing in stages:
        speeds.append(setup.rows / timing.seconds)
        ratios = (speeds[-1] / speeds[max(len(speeds) - 2, 0)], speeds[-1] / speeds[0])
        table.add_row(name, f"{speeds[-1]:.3g}", *(f"{r:.2f}" for r in ratios), timing.share)
    return table


def load(setup: Setup) -> Any:
    """The base's stock pipeline."""
    if setup.base == released.RANDOM:
        return released.sd15(setup.dtype, setup.pixels)[0]
    return bases.load(bases.resolve(setup.base), setup.dtype, torch.device("cpu"))


def _stages(setup: Setup, folder: Path) -> Iterator[tuple[str, Timing]]:
    pipe = load(setup)
    denoiser = pipe.transformer if hasattr(pipe, "transformer") else pipe.unet
    pipe(PROMPT, num_inference_steps=2)  # what the first call allocates is nobody's cost
    own = f"stock, {STOCK_STEPS} steps of {type(pipe.scheduler).__name__}, batches of {STOCK_BATCH}"
    yield own, timed(lambda: _stock(setup, folder, pipe, STOCK_STEPS), denoiser)
    pipe.scheduler = scheduler_of("dpmsolver++", pipe)
    fewer = f"{setup.steps} steps of dpmsolver++"
    yield fewer, timed(lambda: _stock(setup, folder, pipe, setup.steps), denoiser)
    name = f"batches of {BATCH}, prompts encoded once, Parquet"
    yield name, timed(lambda: ours(setup, folder, pipe, depth=0), denoiser)
    yield "decoding and writing overlapped", timed(lambda: ours(setup, folder, pipe, depth=1), denoiser)
    if setup.compile:
        denoiser.compile()
        ours(replace(setup, rows=min(BATCH, setup.rows)), folder, pipe, depth=0)
        yield "denoiser compiled", timed(lambda: ours(setup, folder, pipe, depth=1))


def _plan(rows: int) -> ClassPlan:
    return ClassPlan(label="apple", seed=0, count=rows, prompts=(PROMPT,))


def _stock(setup: Setup, folder: Path, pipe: Any, steps: int) -> None:
    """The plain loop: a batch of prompts, then its images into files."""
    (folder / "stock").mkdir(exist_ok=True)
    for block in next(_plan(setup.rows).shards(setup.rows)).batches(STOCK_BATCH):
        images = pipe(
            [row.prompt for row in block],
            generator=[torch.Generator().manual_seed(row.seed) for row in block],
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
        ).images
        for row, image in zip(block, images, strict=True):
            image.save(folder / "stock" / f"{row.index}.png")


def ours(setup: Setup, folder: Path, pipe: Any, depth: int) -> None:
    """The same rows through the sampler of `python -m generate` into a shard."""
    settings = Settings(scheduler="dpmsolver++", steps=setup.steps, resolution=0)
    batch = min(BATCH, setup.rows)
    sampler = Sampler(pipe, settings, batch_size=batch, depth=depth)
    header = shards.ShardHeader(
        label="apple", classes=["apple"], arguments={}, trained_on=[], versions={}, count=setup.rows
    )
    shared = {"label": 0, "steps": setup.steps, "guidance": GUIDANCE, "scheduler": "", "lora": "", "base": ""}
    blocks = next(_plan(setup.rows).shards(setup.rows)).batches(batch)
    rows = []
    for row, image in sampler.sample(blocks):
        data = metadata.png(image, prompt=row.prompt, system=setup.base, seed=row.seed)
        picture = {"bytes": data, "path": f"{row.index}.png"}
        own = {"image": picture, "prompt": row.prompt, "seed": row.seed, "index": row.index}
        rows.append(own | shared | {"attempt": row.attempt, "guide": ""})
    shards.write(shards.path_of(folder, "apple", 0), rows, header)
