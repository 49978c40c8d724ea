"""evaluate's classifier training against the textbook loop: image files, transformed one by one."""

import io
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from rich.table import Table
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from classify.config import Training
from classify.mixing import UNION
from classify.trainer import batch_stream, train_steps
from orchard.classifiers.networks import build
from orchard.classifiers.predict import autocast
from orchard.datasets import demo
from orchard.images import images
from orchard.images.images import TRAIN, ImageSet

CPU = torch.device("cpu")
SIDE = 64
PHOTO = 512
"""Side of the JPEG files, which stand for photos."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What one loop did."""

    steps: float
    """Steps a second."""
    network: float | None = None
    """Share of the time in the network; None where it was not measured."""


def bench(steps: int, dtype: torch.dtype, folder: Path) -> Table:
    """Steps a second of both loops, ``steps`` of them timed after one that is not; files go to ``folder``."""
    options = Training()
    real = demo.render().of(TRAIN)
    _photos(real, folder)
    rates = _timed(_plain(folder, options, dtype), steps), _timed(ours(real, options, dtype), steps)
    table = Table("evaluate", "plain", "ours", "ratio")
    table.add_row(
        "steps/s", *(f"{rate.steps:.2f}" for rate in rates), f"{rates[1].steps / rates[0].steps:.2f}"
    )
    table.add_row("share of time in the network", "", f"{rates[1].network:.1%}", "")
    return table


def _photos(real: ImageSet, folder: Path) -> None:
    """The drawings as JPEG files of a photo's size, one folder a class."""
    for photo in real.photos:
        path = folder / photo.label / f"{Path(photo.path).stem}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(io.BytesIO(photo.read())) as picture:
            picture.resize((PHOTO, PHOTO)).save(path, quality=90)


def _timed(loop: Iterator[float], steps: int) -> Rate:
    """``loop`` yields the seconds in the network of each step, 0 where it does not know."""
    next(loop)
    started = time.perf_counter()
    inside = sum(itertools.islice(loop, steps))
    seconds = time.perf_counter() - started
    return Rate(steps=steps / seconds, network=inside / seconds if inside else None)


def ours(real: ImageSet, options: Training, dtype: torch.dtype) -> Iterator[float]:
    """evaluate's steps: of each the seconds in the network."""
    pixels, labels = images.pixels(real.photos, SIDE), real.labels()
    model = build(options.model, len(real.classes), SIDE, 0)
    batches = batch_stream((pixels, labels), len(labels), len(real.classes), options, UNION, 0, CPU)
    for step in train_steps(model, batches, options, CPU, dtype):
        yield step.seconds


def _plain(folder: Path, options: Training, dtype: torch.dtype) -> Iterator[float]:
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize((SIDE, SIDE)),
            v2.RandomAffine(degrees=25, translate=(0.1, 0.1), scale=(0.8, 1.25)),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    loader = DataLoader(ImageFolder(folder, transform), options.batch_size, shuffle=True, drop_last=True)
    model = build(options.model, len(loader.dataset.classes), SIDE, 0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    for pixels, labels in itertools.chain.from_iterable(itertools.repeat(loader)):
        with autocast(CPU, dtype):
            loss = torch.nn.functional.cross_entropy(model(pixels).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield 0.0
