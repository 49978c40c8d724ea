"""The log of a run: one JSON line per step beside the adapters, a tracker if asked for, the loss curve."""

import importlib.util
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from PIL import Image

from finetune.config import TrainLora
from finetune.generators.config import TrainGenerator
from orchard.cli import cli
from orchard.errors import UserError
from orchard.files.atomic import whole_file, written

FOLDER = "logs"
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


def require_tracker(name: str) -> None:
    """Raise `UserError` unless the tracker's package is installed; accelerate would run without it."""
    if name != "none" and importlib.util.find_spec(PACKAGES[name]) is None:
        raise UserError(f"--log_with {name}: needs `pip install {PACKAGES[name]}`")


def start(config: TrainLora | TrainGenerator, accelerator: Accelerator) -> None:
    """Open the tracker; its files lie in the folder ``logs`` of the output."""
    if config.log_with != "none":
        values = {name: str(value) for name, value in cli.describe(config).items()}
        accelerator.init_trackers("orchard", config=values)


class Log:
    """The log of one adapter, or generator."""

    def __init__(
        self, config: TrainLora | TrainGenerator, name: str, accelerator: Accelerator, done: int
    ) -> None:
        """The first ``done`` steps of an earlier run stay in the file; later ones are dropped."""
        self.name, self.accelerator = name, accelerator
        self.images = config.batch_size * config.accumulation
        self.path = config.output / FOLDER / f"{name}.jsonl"
        self.before = time.monotonic()
        if accelerator.is_main_process:
            lines = self.path.read_text(encoding="utf-8").splitlines() if done and self.path.is_file() else []
            with whole_file(self.path) as aside:
                aside.write_text("".join(f"{line}\n" for line in lines[:done]), encoding="utf-8")

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """One step, counted from 1."""
        now = time.monotonic()
        found = dict(values) | {"images_per_second": round(self.images / (now - self.before), 3)}
        self.before = now
        self.accelerator.log({f"{self.name}/{key}": value for key, value in found.items()}, step=number)
        if self.accelerator.is_main_process:
            with written(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": number, **found}) + "\n")

    def picture(self, number: int, name: str, image: Image.Image) -> None:
        """Show an RGB image in the tracker, where there is one."""
        for tracker in self.accelerator.trackers:
            pixels = np.asarray(image)
            if tracker.name == "tensorboard":
                tracker.log_images({name: pixels[None]}, step=number, dataformats="NHWC")
            elif tracker.name == "wandb":
                tracker.log_images({name: [pixels]}, step=number)
            else:
                trackio = importlib.import_module(tracker.name)
                tracker.log({name: trackio.Image(pixels)}, step=number)


WINDOW = 0.05
"""Share of the steps that the smoothed line averages over."""


def draw_losses(
    log: Path, path: Path, title: str, panels: Mapping[str, str] = {"loss": "training, as weighted"}
) -> None:
    """Draw the losses in ``log`` (one JSON line per step) into a PNG, whole or not at all.

    ``panels`` has the title of each loss that is there at every step.
    """
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = np.array([line["step"] for line in lines])
    held_out = [(line["step"], line["validation_loss"]) for line in lines if "validation_loss" in line]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels) + bool(held_out), squeeze=False)[0]
    for axis, (key, said) in zip(axes, panels.items(), strict=False):
        losses = np.array([line[key] for line in lines])
        axis.plot(steps, losses, color="#56b4e9", lw=0.6, alpha=0.7, label="each step")
        axis.plot(steps, smoothed(losses), color="#0072b2", lw=2, label="running mean")
        axis.set(title=said)
    axes[0].legend(frameon=False)
    if held_out:
        # A panel of its own: this loss is not weighted, so the two are of different sizes.
        axes[-1].plot(*zip(*held_out, strict=True), "o-", color="#d55e00", ms=4)
        axes[-1].set(title="held-out photos, unweighted")
    for axis in axes:
        axis.set(xlabel="step", ylabel="loss")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, parse_math=False)
    with whole_file(path) as aside:
        figure.savefig(aside, format="png", dpi=120)


def smoothed(losses: np.ndarray) -> np.ndarray:
    """(N,) -> (N,): the mean over the `WINDOW` of steps that ends at each, or over those there are."""
    width = max(1, round(WINDOW * len(losses)))
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(0, ends - width)
    return (sums[ends] - sums[starts]) / (ends - starts)
