"""Our training loop against one that encodes image and prompt at every step, each in a process of its own."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.table import Table

from bench import released
from finetune.config import TrainLora
from finetune.models import lora
from finetune.models.families import family_of
from finetune.models.family import Family, Network
from finetune.planning.accelerators import MIXED
from finetune.step.batches import Batch, TrainingData
from finetune.step.objective import Objective
from finetune.training import learner
from finetune.training.loop import train_steps
from orchard import devices
from orchard.bases import bases

PROMPT = "a photo of apple"
IMAGES = 2
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is trained, and how long."""

    base: str = released.RANDOM
    """A base, or `released.RANDOM`."""
    pixels: int = 256
    """Side of the images."""
    batch_size: int = 1
    steps: int = 20
    """Timed ones, after one that is not."""
    precision: str = "fp32"
    gradient_checkpointing: bool = False
    compile: bool = False
    """Our loop as `accelerate launch --dynamo_backend inductor` runs it; the plain loop stays as it is."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one loop took."""

    seconds: list[float]
    """Of each timed step."""
    in_denoiser: float
    """Share of the timed seconds in the denoiser, forward and backward."""
    peak: int
    """Most memory of the process, bytes."""
    before: int
    """Most memory before the model was made: interpreter and libraries."""

    @property
    def median(self) -> float:
        """Seconds of the middle step."""
        return float(np.median(self.seconds))


def compare(shape: Shape) -> Table:
    """A table of both loops and their ratio."""
    plain, ours = (measure(loop, shape) for loop in ("plain", "ours"))
    table = Table("train", "plain", "ours", "ratio", title=f"{shape.base}, {shape.precision}")
    rates = [1 / found.median for found in (plain, ours)]
    table.add_row("steps/s", *(f"{rate:.3f}" for rate in rates), f"{rates[1] / rates[0]:.2f}")
    peaks = [found.peak / GIB for found in (plain, ours)]
    table.add_row("peak memory, GiB", *(f"{peak:.2f}" for peak in peaks), f"{peaks[1] / peaks[0]:.2f}")
    table.add_row("share of time in the denoiser", *(f"{f.in_denoiser:.1%}" for f in (plain, ours)), "")
    return table


def measure(loop: str, shape: Shape) -> Measured:
    """Run a loop, ``plain`` or ``ours``, in a fresh process, so that its peak is its own."""
    words = [sys.executable, "-m", "bench.training", loop, json.dumps(asdict(shape))]
    done = subprocess.run(words, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def peak_memory() -> int:
    """Most resident memory this process has had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Stopwatch:
    """Seconds in the denoiser: its forward passes, and backward from its answer to its last gradient."""

    def __init__(self, denoiser: Any, parameters: list[torch.nn.Parameter]) -> None:
        self.total = self.began = self.latest = 0.0
        denoiser.register_forward_pre_hook(self._begin)
        denoiser.register_forward_hook(self._forward)
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._gradient)

    def _begin(self, *_: Any) -> None:
        self.began = time.perf_counter()

    def _forward(self, module: Any, arguments: Any, answer: Any) -> None:
        self.total += time.perf_counter() - self.began
        (answer[0] if isinstance(answer, tuple) else answer).register_hook(self._backward)

    def _backward(self, _: Any) -> None:
        self.latest = time.perf_counter()

    def _gradient(self, _: Any) -> None:
        now = time.perf_counter()
        self.total, self.latest = self.total + now - self.latest, now


def _family(shape: Shape) -> Family:
    """The base's family on its loaded pipeline."""
    dtype = devices.torch_dtype(shape.precision, torch.device("cpu"))
    if shape.base == released.RANDOM:
        pipe, base = released.sd15(dtype)
    else:
        base = bases.resolve(shape.base)
        pipe = bases.load(base, dtype, torch.device("cpu"))
    return family_of(pipe, base)


def _ours(family: Family, pixels: np.ndarray, config: TrainLora, accelerator: Any) -> Iterator[Any]:
    photos = family.encode(pixels, [PROMPT] * len(pixels))
    data = TrainingData(photos=photos, files=[PROMPT] * len(pixels))
    parameters = lora.inject(family.denoiser, config.rank, config.rank, 0)
    trained = learner.prepare(family, parameters, config, accelerator)
    return train_steps(family, data, trained, config, accelerator)


def _plain(family: Family, pixels: np.ndarray, config: TrainLora, accelerator: Any) -> Iterator[int]:
    """The textbook loop: encode the image, encode the prompt, predict, step."""
    parameters = lora.inject(family.denoiser, config.rank, config.rank, 0)
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate)
    network = Network(family).train()
    for index in range(config.steps):
        rows = [(index * config.batch_size + k) % len(pixels) for k in range(config.batch_size)]
        images = torch.from_numpy(pixels[rows]).permute(0, 3, 1, 2) / 127.5 - 1
        vae = family.pipe.vae
        with torch.no_grad():
            latents = vae.encode(images.to(vae.dtype)).latent_dist.sample() * vae.config.scaling_factor
        batch = Batch(
            latents=latents.float(),
            noise=torch.randn_like(latents, dtype=torch.float32),
            times=torch.rand(len(rows), dtype=torch.float64),
            prompts=family.encode_prompts([PROMPT] * len(rows)),
            rows=rows,
        )
        with accelerator.autocast():
            loss = family.loss(network, batch, Objective.of(config))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield index


def steps_of(loop: str, shape: Shape) -> tuple[Family, Iterator[Any]]:
    """A loaded family, and the steps of a loop, ``plain`` or ``ours``, on random images."""
    devices.quiet_libraries()
    family, side = _family(shape), shape.pixels
    pixels = np.random.default_rng(0).integers(
        0, 256, (max(IMAGES, shape.batch_size), side, side, 3), np.uint8
    )
    config = TrainLora(
        steps=shape.steps + 1,
        batch_size=shape.batch_size,
        accumulation=1,
        learning_rate=1e-4,
        gradient_checkpointing=shape.gradient_checkpointing,
    )
    dtype = devices.torch_dtype(shape.precision, torch.device("cpu"))
    compiler = "inductor" if shape.compile and loop == "ours" else "no"
    accelerator = Accelerator(cpu=True, mixed_precision=MIXED[dtype], dynamo_backend=compiler)
    return family, {"ours": _ours, "plain": _plain}[loop](family, pixels, config, accelerator)


def main() -> None:
    """The process of one loop: measure it and print the result as JSON."""
    loop, shape = sys.argv[1], Shape(**json.loads(sys.argv[2]))
    before = peak_memory()
    family, steps = steps_of(loop, shape)
    next(steps)  # the first one makes buffers
    watch = Stopwatch(family.denoiser, [p for p in family.denoiser.parameters() if p.requires_grad])
    seconds = []
    for _ in range(shape.steps):
        started = time.perf_counter()
        next(steps)
        seconds.append(time.perf_counter() - started)
    found = Measured(
        seconds=seconds, in_denoiser=watch.total / sum(seconds), peak=peak_memory(), before=before
    )
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
