"""Ratios against plain loops, both sides timed in one run: `make bench`.

    python scripts/benchmark.py [generate] [train] [--base mini]
    python scripts/benchmark.py generate --base sd15-random --pixels 256 --rows 16

Absolute times depend on the machine and on what else it runs; the ratios are what to compare.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table

from bench import generation, random_models
from finetune import lora
from finetune.batches import Batch
from finetune.config import TrainLora
from finetune.families import Family, family_of
from finetune.training import train_steps
from orchard import bases, demo, images, run, shards

CPU = torch.device("cpu")
PROMPT = "a photo of apple"


def seconds(work: Callable[[], Any]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def bench_train(base: bases.Base, dtype: torch.dtype) -> list[tuple[str, float, float]]:
    """Training steps against a loop that encodes image and prompt at every step; steps/s each."""
    photos = demo.render().photos[:16]
    pixels = images.pixels(photos, base.resolution)
    family = family_of(bases.load(base, dtype, CPU), base)
    config = TrainLora(steps=20, batch_size=8)
    parameters = lora.inject(family.denoiser, config.rank, config.rank, 0, family.targets)
    cache = family.encode(pixels, [PROMPT] * len(photos))
    accelerator = Accelerator(mixed_precision="bf16" if dtype == torch.bfloat16 else "no")

    def ours() -> None:
        for _ in train_steps(family, cache, parameters, [p.path for p in photos], config, accelerator):
            pass

    fast = config.steps / seconds(ours)
    slow = config.steps / seconds(lambda: plain_loop(family, pixels, parameters, config, accelerator))
    return [("train, steps/s", slow, fast)]


def plain_loop(
    family: Family, pixels: np.ndarray, parameters: list, config: TrainLora, accelerator: Accelerator
) -> None:
    """The textbook loop: decode, encode, embed, predict, step."""
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate)
    for index in range(config.steps):
        rows = [(index * config.batch_size + k) % len(pixels) for k in range(config.batch_size)]
        encoded = family.encode(pixels[rows], [PROMPT] * len(rows))
        batch = Batch(
            latents=encoded.mean[0],
            noise=torch.randn_like(encoded.mean[0]),
            times=torch.rand(len(rows), dtype=torch.float64),
            text={name: states[encoded.prompt_of] for name, states in encoded.prompts.items()},
            rows=rows,
        )
        with accelerator.autocast():
            loss = family.loss(family.denoiser, batch, config.snr_gamma)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def bench_shards(folder: Path) -> list[tuple[str, float, float]]:
    """Reading a shard against decoding its images: what provenance costs a reader."""
    origin = shards.Origin(label="a", classes=["a"], arguments={}, trained_on=[], versions={}, count=256)
    data = demo.render().photos[0].read()
    shared = {"label": 0, "prompt": PROMPT, "steps": 1, "guidance": 1.0, "scheduler": "", "lora": ""}
    shared |= {"base": "", "attempt": 0, "guide": ""}
    rows = [
        {"image": {"bytes": data, "path": f"{k}.bmp"}, "seed": k, "index": k, **shared} for k in range(256)
    ]
    shards.write(shards.path_of(folder, "a", 0), rows, origin)
    shards.write_manifest(folder, shards.manifest_of(folder))
    found = shards.read(folder)
    decode = len(rows) / seconds(lambda: images.pixels(found.photos, 64))
    read = len(rows) / seconds(lambda: shards.read(folder))
    return [("shards, images/s: decode, read", decode, read)]


def main() -> None:
    """Run what was asked for and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["generate", "train", "shards"])
    parser.add_argument("--base", default="mini", help=f"a base, or {random_models.NAME} (generate alone)")
    parser.add_argument("--rows", type=int, default=80, help="images to sample")
    parser.add_argument("--sampling_steps", type=int, default=0, help="0 takes the base's usual number")
    parser.add_argument("--pixels", type=int, default=512, help=f"side of the images of {random_models.NAME}")
    parser.add_argument("--compile", action="store_true", help="measure the compiled denoiser too")
    args = parser.parse_args()
    run.quiet_libraries()
    dtype, console = run.torch_dtype("auto", CPU), Console()
    results: list[tuple[str, float, float]] = []
    if "generate" in args.what:
        sizes = {"base": args.base, "pixels": args.pixels, "rows": args.rows, "steps": args.sampling_steps}
        console.print(generation.bench(generation.Setup(**sizes, compile=args.compile, dtype=dtype)))
    if "train" in args.what:
        results += bench_train(bases.resolve(args.base), dtype)
    if "shards" in args.what:
        with tempfile.TemporaryDirectory() as folder:
            results += bench_shards(Path(folder))
    if results:
        table = Table("what", "plain", "ours", "ratio")
        for name, plain, ours in results:
            table.add_row(name, f"{plain:.2f}", f"{ours:.2f}", f"{ours / plain:.2f}")
        console.print(table)
    console.print(f"{torch.get_num_threads()} threads, {dtype}, {args.base}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
