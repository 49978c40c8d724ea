"""`generate` with images drawn by a function instead of a diffusion model: all but the sampling is real."""

from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import pictures
import plans
from PIL import Image
from pytest import MonkeyPatch

from generate import command
from generate.config import Generate
from generate.planning.plan import Row
from orchard import shards

CLASSES = ("apple", "pear")
FLAT = Image.new("RGB", (32, 32), (200, 30, 30))
Draw = Callable[[Row], Image.Image]


def row(index: int, label: str = "apple") -> Row:
    """A row of the plan that the command makes."""
    return plans.class_plan(label).row(index)


def noise(row: Row) -> Image.Image:
    """Random pixels, another image for every seed."""
    return pictures.noise(row.seed, (32, 32))


def unlucky(one: Row) -> Image.Image:
    """Every third image flat, every fifth of the rest a copy of the one before the last."""
    if one.seed % 3 == 0:
        return FLAT
    if one.seed % 5 == 0 and one.index > 1:
        return noise(row(one.index - 2, one.label))
    return noise(one)


def flat_at(*numbers: int) -> Draw:
    """Noise, but for these candidates."""
    return lambda row: FLAT if row.index in numbers else noise(row)


def shaded(seed: int, light: int) -> Image.Image:
    """Dark noise, brighter by ``light`` grey levels."""
    return pictures.noise(seed, (32, 32)).point(lambda value: value // 4 + light)


def classifier(folder: Path) -> Path:
    """The folder with ``c``, a classifier that tells dark images (apple) from bright ones (pear).

    In ``photos`` is what it was trained on.
    """
    from classify.command import classify
    from classify.config import Classify

    files = {
        f"photos/{split}/{name}/{i}.png": pictures.encoded(shaded(first + i, 190 * (name == "pear")))
        for first, split in ((0, "train"), (100, "test"))
        for name in CLASSES
        for i in range(8)
    }
    data = str(pictures.write(folder, files) / "photos")
    options = {"size": 32, "steps": 30, "batch_size": 8, "precision": "fp32"}
    classify(Classify(train=data, test=data, output=folder / "c", **options))
    return folder


def ends_within_one_write(run: Callable[[], object]) -> bool:
    """Interrupt the run at its second write of a shard; whether it came to its end before."""
    left, write = [1], shards.files.write

    def write_once(*arguments: Any) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        write(*arguments)

    with MonkeyPatch.context() as patch:
        patch.setattr(shards.files, "write", write_once)
        try:
            run()
        except KeyboardInterrupt:
            return False
    return True


class Samplers:
    """Stands in for `generate.sampling.tasks.Samplers`; counts the rows it draws."""

    def __init__(self, draw: Draw, batch_size: int) -> None:
        self.draw, self.batch_size, self.drawn = draw, batch_size, 0

    def of(self, job: Any) -> "Samplers":
        return self

    def sample(self, blocks: Iterable[Sequence[Row]]) -> Generator[tuple[Row, Image.Image]]:
        for block in blocks:
            assert len(block) <= self.batch_size
            for one in block:
                self.drawn += 1
                # A picture of its own, as a sampler gives: one picture is not for several threads.
                yield one, self.draw(one).copy()


def generate(
    monkeypatch: MonkeyPatch, base: Path, output: object, draw: Draw = noise, /, **options: Any
) -> int:
    """Run the command for the untuned base; the number of images drawn."""
    settings = {"classes": ("apple",), "count": 10, "batch_size": 4, "shard_size": 8, "precision": "fp32"}
    config = Generate(output=str(output), **{"base": str(base), **settings, **options})
    samplers = Samplers(draw, config.batch_size)
    monkeypatch.setattr(command, "Samplers", lambda *_: samplers)
    command.generate(config)
    return samplers.drawn


def photos(folder: Path, per_class: int = 4) -> Path:
    """A real set of noise images with a split of its own."""
    folders = [f"{split}/{name}" for split in ("train", "test") for name in CLASSES]
    return pictures.write(folder, [f"{name}/{i}.png" for name in folders for i in range(per_class)])


def rows(folder: Path, split: str = shards.TRAIN) -> list[dict[str, Any]]:
    """The rows of one split in the order of its files."""
    return [row for shard in shards.existing(folder, split) for row in shards.rows_of(shard.path)]


def indices(folder: Path, split: str = shards.TRAIN) -> list[int]:
    return [row["index"] for row in rows(folder, split)]
