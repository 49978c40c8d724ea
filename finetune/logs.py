"""What a run tells of itself: one JSON line a step beside the adapters, and a tracker where asked for."""

import importlib.util
import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from finetune.config import TrainLora
from orchard import cli
from orchard.errors import UserError
from orchard.run import whole_file, written

FOLDER = "logs"
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


def require_tracker(name: str) -> None:
    """Raise `UserError` unless the tracker's package is installed; accelerate would go on without it."""
    if name != "none" and importlib.util.find_spec(PACKAGES[name]) is None:
        raise UserError(f"--log_with {name}: needs `pip install {PACKAGES[name]}`")


def start(config: TrainLora, accelerator: Any) -> None:
    """Open the tracker; its files lie in the folder ``logs`` of the output."""
    if config.log_with != "none":
        values = {name: str(value) for name, value in cli.describe(config).items()}
        accelerator.init_trackers("orchard", config=values)


class Log:
    """The log of one adapter."""

    def __init__(self, config: TrainLora, name: str, accelerator: Any, done: int) -> None:
        """``done`` steps of an earlier run stay in the file, later ones that it had written go."""
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
