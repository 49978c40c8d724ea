"""Ratios against plain loops, both sides timed in one run: `make bench`.

    python scripts/benchmark.py [generate] [train] [evaluate] [startup] [shards] [memory] [profile] [growth]
    python scripts/benchmark.py generate --base sd15-random --pixels 256 --rows 16

Absolute times depend on the machine and on what else it runs; the ratios are what to compare. `train` takes a
network of Stable Diffusion 1.5's sizes with random weights (sd15-random) unless told another --base,
`generate` the embedded one; `memory` says what training needs on a device, `profile` which operators each
loop spends its time in, `growth` how costs grow with the number of images. `--append` keeps what was found.
"""

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench import classifying, generation, growth, memory, page, profiling, released, startup, training
from orchard import devices, shards
from orchard.bases import usual
from orchard.datasets import demo
from orchard.images import images

CPU = torch.device("cpu")
PROMPT = "a photo of apple"
WHAT = ("generate", "train", "evaluate", "startup", "shards", "memory", "profile", "growth")


def seconds(work: Callable[[], Any]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def bench_shards(folder: Path) -> Table:
    """Reading a shard against decoding its images: what provenance costs a reader."""
    header = shards.ShardHeader(label="a", classes=["a"], arguments={}, trained_on=[], versions={}, count=256)
    data = demo.render().photos[0].read()
    shared = {"label": 0, "prompt": PROMPT, "steps": 1, "guidance": 1.0, "scheduler": "", "lora": ""}
    shared |= {"base": "", "attempt": 0, "guide": ""}
    rows = [
        {"image": {"bytes": data, "path": f"{k}.bmp"}, "seed": k, "index": k, **shared} for k in range(256)
    ]
    shards.write(shards.path_of(folder, "a", 0), rows, header)
    shards.write_manifest(folder, shards.manifest_of(folder))
    found = shards.read(folder)
    decode = len(rows) / seconds(lambda: images.pixels(found.photos, 64))
    read = len(rows) / seconds(lambda: shards.read(folder))
    table = Table("shards", "decode", "read", "ratio")
    table.add_row("images/s", f"{decode:.0f}", f"{read:.0f}", f"{read / decode:.2f}")
    return table


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", default=WHAT[:5], metavar="|".join(WHAT))
    parser.add_argument("--base", default="", help=f"a base, or {released.RANDOM}")
    parser.add_argument("--pixels", type=int, default=256, help=f"side of the images of {released.RANDOM}")
    parser.add_argument("--precision", default="auto", help="of the networks: auto, fp32 or bf16")
    parser.add_argument("--batch_size", type=int, default=1, help="training images a step")
    parser.add_argument("--steps", type=int, default=10, help="timed training steps")
    parser.add_argument("--classifier_steps", type=int, default=30, help="timed steps of the classifier")
    parser.add_argument("--rows", type=int, default=80, help="images to sample")
    parser.add_argument("--sampling_steps", type=int, default=0, help="0 takes the base's usual number")
    parser.add_argument("--append", type=Path, help="Markdown page that the tables are added to")
    parser.add_argument("--compile", action="store_true", help="also with a compiled denoiser")
    found = parser.parse_args()
    if unknown := set(found.what) - set(WHAT):
        parser.error(f"{', '.join(sorted(unknown))}: give some of {', '.join(WHAT)}")
    return found


def main() -> None:
    """Run what was asked for and print a table each."""
    args, console = arguments(), Console()
    devices.quiet_libraries()
    found = []
    for table in tables(args, devices.torch_dtype(args.precision, CPU)):
        console.print(table)
        found.append(table)
    console.print(f"{page.processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    if args.append:
        page.append(args.append, shlex.join(["python", "scripts/benchmark.py", *sys.argv[1:]]), found)


def tables(args: argparse.Namespace, dtype: torch.dtype) -> Iterator[Table]:
    """What was asked for, one after the other."""
    if "generate" in args.what:
        yield generation.bench(sampled(args, dtype))
    if "train" in args.what:
        yield training.compare(trained(args, dtype))
    if "evaluate" in args.what:
        with tempfile.TemporaryDirectory() as folder:
            yield classifying.bench(args.classifier_steps, dtype, Path(folder))
    if "startup" in args.what:
        yield startup.bench()
    if "shards" in args.what:
        with tempfile.TemporaryDirectory() as folder:
            yield bench_shards(Path(folder))
    if "memory" in args.what:
        yield from memory.tables(devices.dtype_name(dtype))
    if "profile" in args.what:
        yield from profiling.tables(trained(args, dtype), sampled(args, dtype))
    if "growth" in args.what:
        yield from growth.tables()


def sampled(args: argparse.Namespace, dtype: torch.dtype) -> generation.Setup:
    """What `generate` measures."""
    base = args.base or "mini"
    return generation.Setup(
        base=base,
        pixels=args.pixels,
        rows=args.rows,
        steps=args.sampling_steps or usual.SAMPLING.get(base, usual.STEPS).steps,
        compile=args.compile,
        dtype=dtype,
    )


def trained(args: argparse.Namespace, dtype: torch.dtype) -> training.Shape:
    """What `train` measures."""
    return training.Shape(
        base=args.base or released.RANDOM,
        pixels=args.pixels,
        batch_size=args.batch_size,
        steps=args.steps,
        precision=devices.dtype_name(dtype),
        compile=args.compile,
    )


if __name__ == "__main__":
    main()
