"""Ratios against plain loops, both sides timed in one run: `make bench`.

    python scripts/benchmark.py [generate] [train] [shards] [memory]

Absolute times depend on the machine and on what else it runs; the ratios are what to compare. `train` takes a
network of Stable Diffusion 1.5's sizes with random weights at 256 px, or --base; `memory` says what training
needs on a device.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench import memory, training
from generate.plan import plan
from generate.sampler import Sampler
from orchard import bases, demo, images, run, shards

CPU = torch.device("cpu")
PROMPT = "a photo of apple"


def seconds(work: Callable[[], Any]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def bench_generate(base: bases.Base, dtype: torch.dtype) -> list[tuple[str, float, float]]:
    """Rows through our sampler against one stock call an image, same steps; images/s each."""
    rows = plan(PROMPT, 32, 0, 64)[0].rows
    plain = bases.load(base, dtype, CPU)
    pipe = bases.load(base, dtype, CPU)
    sampler = Sampler(pipe, scheduler="dpmsolver++", steps=20, guidance=2.0, batch_size=16)

    def one_by_one() -> None:
        for row in rows[:8]:
            plain(PROMPT, generator=torch.Generator().manual_seed(row.seed), num_inference_steps=20)

    stock = 8 / seconds(one_by_one)
    ours = len(rows) / seconds(lambda: list(sampler.sample(rows, PROMPT)))
    return [("generate, images/s", stock, ours)]


def bench_shards(folder: Path) -> list[tuple[str, float, float]]:
    """Reading a shard against decoding its images: what provenance costs a reader."""
    origin = shards.Origin(label="a", classes=["a"], arguments={}, trained_on=[], versions={}, count=256)
    data = demo.render().photos[0].read()
    shared = {"label": 0, "prompt": PROMPT, "steps": 1, "guidance": 1.0, "scheduler": "", "lora": ""}
    rows = [
        {"image": {"bytes": data, "path": f"{k}.bmp"}, "seed": k, "index": k, "base": "", **shared}
        for k in range(256)
    ]
    shards.write(shards.path_of(folder, "a", 0), rows, origin)
    shards.write_manifest(folder, shards.manifest_of(folder))
    found = shards.read(folder)
    decode = len(rows) / seconds(lambda: images.pixels(found.photos, 64))
    read = len(rows) / seconds(lambda: shards.read(folder))
    return [("shards, images/s: decode, read", decode, read)]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    choices = ("generate", "train", "shards", "memory")
    parser.add_argument("what", nargs="*", default=["generate", "train", "shards"], metavar="|".join(choices))
    parser.add_argument("--base", default="", help=f"default: {training.SHAPE} to train, mini to generate")
    parser.add_argument("--pixels", type=int, default=256, help="side of the training images")
    parser.add_argument("--batch_size", type=int, default=1, help="training images a step")
    parser.add_argument("--steps", type=int, default=10, help="timed training steps")
    parser.add_argument("--precision", default="auto", help="of the networks: auto, fp32 or bf16")
    found = parser.parse_args()
    if unknown := set(found.what) - set(choices):
        parser.error(f"{', '.join(sorted(unknown))}: give some of {', '.join(choices)}")
    return found


def main() -> None:
    """Run what was asked for and print one table each."""
    args = arguments()
    run.quiet_libraries()
    dtype = run.torch_dtype(args.precision, CPU)
    console, results = Console(), []
    if "train" in args.what:
        shape = training.Shape(
            base=args.base or training.SHAPE,
            pixels=args.pixels,
            batch_size=args.batch_size,
            steps=args.steps,
            precision=run.dtype_name(dtype),
        )
        console.print(training.compare(shape))
    if "memory" in args.what:
        for table in memory.tables(run.dtype_name(dtype)):
            console.print(table)
    if "generate" in args.what:
        results += bench_generate(bases.resolve(args.base or "mini"), dtype)
    if "shards" in args.what:
        with tempfile.TemporaryDirectory() as folder:
            results += bench_shards(Path(folder))
    if results:
        table = Table("what", "plain", "ours", "ratio")
        for name, plain, ours in results:
            table.add_row(name, f"{plain:.2f}", f"{ours:.2f}", f"{ours / plain:.2f}")
        console.print(table)
    console.print(f"{torch.get_num_threads()} threads, {dtype}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
