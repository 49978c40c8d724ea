"""How cost grows with size: seconds and megabytes at three sizes each, and how they follow the size."""

import math
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from accelerate.state import AcceleratorState
from PIL import Image
from rich.table import Table

from bench import held, scoring
from bench.clock import timed
from finetune.config import TrainLora
from finetune.planning import plan
from finetune.planning.accelerators import accelerator_for
from generate.config import Generate
from generate.outputs import metadata
from generate.outputs.folder import Task
from generate.planning.jobs import Job
from generate.planning.plan import ClassPlan, Row
from generate.sampling import tasks
from generate.screening import near_hashes
from generate.screening.screens import ScreenPlan, Screens
from orchard import shards
from orchard.images.thumbnails import SIDE, References

LABEL = "apple"
PACE, ROWS, EACH, PIXELS = 50, 512, 64, 512
"""Images a second of a sampler that a fast GPU could be, images, those of a shard, pixels of their sides."""
FEW = 20
"""Shards of a small set."""
SHARED = {"steps": 1, "scheduler": "", "lora": "", "base": ""}


def tables() -> list[Table]:
    """All of it."""
    seconds = Table("growth", "sizes", "seconds", "power of the size")
    for line in (
        ("near-duplicates among hashes", (10_000, 100_000, 1_000_000), _near_duplicates),
        ("one image against training photos", (500, 5_000, 50_000), _one_against_photos),
        ("the manifest of shards", (100, 400, 1_600), _manifest),
        ("opening a whole set of shards", (100, 400, 1_600), _opening),
        ("planning a finetune, ten photos a class", (200, 800, 3_200), _planning),
        *scoring.SECONDS,
    ):
        _add(seconds, *line)
    megabytes = Table("growth", "sizes", "megabytes", "power of the size")
    for line in (
        (f"{FEW} shards with photos that were seen", (1_000, 10_000, 100_000), _of_ledgers),
        ("training on photos with captions", (250, 1_000, 4_000), held.training_set),
        ("what is odd about photos", (250, 500, 1_000), held.review),
        *scoring.MEGABYTES,
    ):
        _add(megabytes, *line)
    paced = Table("a sampler at its own pace", "images/s", "share kept")
    kept = ROWS / PACE / _paced()
    paced.add_row(
        f"screens, PNG, shards of {EACH}; {PIXELS} px, {tasks.WORKERS} threads", str(PACE), f"{kept:.0%}"
    )
    return [seconds, megabytes, paced]


def _add(table: Table, name: str, sizes: Sequence[int], measure: Callable[[int], float]) -> None:
    found = [measure(size) for size in sizes]
    power = math.log(found[-1] / found[0]) / math.log(sizes[-1] / sizes[0])
    table.add_row(name, _listed(sizes), ", ".join(f"{one:.2g}" for one in found), f"{power:.2f}")


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(f"{size:,}" for size in sizes)


def _near_duplicates(size: int) -> float:
    """Random hashes, each tenth a copy but for some bits."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, size, dtype=np.uint64)
    copies = hashes[: size // 10]
    for _ in range(6):
        copies = copies ^ (np.uint64(1) << rng.integers(0, 64, len(copies)).astype(np.uint64))
    hashes[-len(copies) :] = copies
    return timed(lambda: near_hashes.find(hashes)).seconds


def _one_against_photos(size: int) -> float:
    rng = np.random.default_rng(0)
    photos = References(rng.integers(0, 256, (size, SIDE, SIDE, 3), dtype=np.uint8))
    image = rng.integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    return min(timed(lambda: photos.nearest(image)).seconds for _ in range(5))


def _set(folder: Path, size: int, header: shards.ShardHeader) -> None:
    """As many shards of one small image each."""
    data = metadata.png(Image.new("RGB", (8, 8)), prompt="", system="")
    for number in range(size):
        row = {"image": {"bytes": data, "path": "x.png"}, "label": 0, "prompt": "", "index": number}
        shards.write(shards.path_of(folder, LABEL, number), [row | {"reason": ""}], header)


def _header(count: int) -> shards.ShardHeader:
    return shards.ShardHeader(
        label=LABEL,
        classes=[LABEL],
        arguments={"screens": {}, **SHARED},
        trained_on=[],
        versions={},
        count=count,
    )


def _of_ledgers(size: int) -> float:
    """Megabytes of a set of `FEW` shards whose generator and screen have seen as many photos."""
    seen = [f"{photo:064x}" for photo in range(size)]
    header = replace(_header(FEW), trained_on=seen, screened_with={"memorised": seen})
    with tempfile.TemporaryDirectory() as name:
        _set(Path(name), FEW, header)
        return sum(path.stat().st_size for path in Path(name).rglob("*.*")) / held.MB


def _of_set(size: int, work: Callable[[Path], Any]) -> float:
    with tempfile.TemporaryDirectory() as name:
        _set(Path(name), size, _header(size))
        shards.write_manifest(Path(name), shards.manifest_of(Path(name)))
        return timed(lambda: work(Path(name))).seconds


def _manifest(size: int) -> float:
    return _of_set(size, shards.manifest_of)


def _opening(size: int) -> float:
    return _of_set(size, shards.require_unaltered)


def _planning(size: int) -> float:
    """One adapter of tiny photos with a caption each."""
    picture = Image.new("RGB", (8, 8))
    with tempfile.TemporaryDirectory() as name:
        photos = Path(name) / "photos"
        for number in range(size):
            file = photos / f"class {number % (size // 10)}" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(metadata.png(picture, prompt=str(number), system=""))
            file.with_suffix(".txt").write_text(f"photo {number}", encoding="utf-8")
        config = TrainLora(data=str(photos), output=Path(name) / "adapters", cache=name, joint=True)
        accelerator, dtype = accelerator_for(config)

        def work() -> None:
            resolved, made = plan.make(config, accelerator, dtype)
            plan.lines(resolved, made, accelerator)

        try:
            return timed(work).seconds
        finally:
            AcceleratorState._reset_state()  # else nothing here could take another precision


class _Paced:
    """Gives an image whenever its time has come, made beforehand."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        small = [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(16)]
        size, kind = (PIXELS, PIXELS), Image.Resampling.BICUBIC
        self.images = [Image.fromarray(one).resize(size, kind) for one in small]
        self.batch_size = 16

    def sample(self, blocks: Iterable[Sequence[Row]]) -> Generator[tuple[Row, Image.Image]]:
        """One image a row."""
        due = time.monotonic()
        for row in (row for block in blocks for row in block):
            due += 1 / PACE
            time.sleep(max(0.0, due - time.monotonic()))
            yield row, self.images[row.index % len(self.images)].copy()


def _paced() -> float:
    """Wall seconds until the images of a paced sampler are screened, encoded and written."""
    plan = ClassPlan(label=LABEL, seed=0, count=ROWS, prompts=("a photo of apple",))
    job = Job(source=cast(Any, None), header=_header(ROWS), plan=plan)
    own = [Task(job=job, shard=shard) for shard in plan.shards(EACH)]
    screened = ScreenPlan(names=("flat", "duplicate"), arguments={}, seen={})
    screens, sampler = Screens(Generate(), screened), cast(Any, _Paced())
    with tempfile.TemporaryDirectory() as folder:
        return timed(lambda: tasks.fill(Path(folder), own, sampler, screens, None, lambda _: None)).seconds
