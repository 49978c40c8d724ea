"""Sizes of classify and evaluate: images that are kept on disk, seconds and records of statistics."""

import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from bench.clock import timed
from bench.held import MB, own_bytes
from evaluate.analysis.analyse import analyse
from evaluate.metrics import score
from evaluate.records import records
from evaluate.records.predictions import Predictions, rounded
from evaluate.records.records import Record
from generate.outputs import metadata
from orchard.images import arrays
from orchard.images.images import AHEAD, TRAIN, Photo

SIDE, RUNS = 224, 4


def decoding(size: int) -> float:
    """MB of a process's own memory that images of `SIDE` pixels take while they are decoded to disk."""
    from PIL import Image

    data = metadata.png(Image.new("RGB", (SIDE, SIDE)), prompt="", system="")
    photo = Photo(path="x.png", label="x", split=TRAIN, sha256="", read=lambda: data)
    before, arrays.SHARE = arrays.SHARE, 0.0
    try:
        arrays.decoded([photo] * AHEAD, SIDE)  # threads that there are take nothing anew
        return _grown(lambda: arrays.decoded([photo] * size, SIDE))
    finally:
        arrays.SHARE = before


def _grown(work: Callable[[], object]) -> float:
    """MB of anonymous memory at its peak beyond what there was before."""
    done, found = threading.Event(), [own_bytes()]

    def watch() -> None:
        while not done.wait(0.005):
            found.append(own_bytes())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        work()
    finally:
        done.set()
        watching.join()
    return max(max(found) - found[0], MB) / MB


def _runs(images: int, classes: int) -> list[Record]:
    """Two arms of two seeds each."""
    rng = np.random.default_rng(0)
    names = [f"class {k}" for k in range(classes)]
    truth = np.arange(images, dtype=np.int64) % classes
    found = []
    for run in range(RUNS):
        logits = rng.normal(size=(images, classes))
        logits[np.arange(images), truth] += 4
        shares = np.exp(logits)
        shares = rounded(shares / shares.sum(axis=1, keepdims=True))
        ratio = (1.0, 0.5)[run % 2]
        said = Predictions([f"test/{i}.jpg" for i in range(images)], truth, shares, names)
        stored = {"design": "substitute", "ratio": ratio, "shots": None, "seed": run // 2}
        counts = {"n_real": round(200 * ratio), "n_synthetic": round(200 * (1 - ratio)), "steps": 400}
        scores = score([names[k] for k in truth], shares, names)
        found.append(
            records.complete(cast(Any, {**stored, **counts, **scores, "classes": names, "predictions": said}))
        )
    return found


def statistics(images: int, classes: int) -> float:
    """Seconds that everything which is computed of a few runs' records takes."""
    found = _runs(images, classes)
    return timed(lambda: analyse(found)).seconds


def stored(images: int, classes: int) -> float:
    """MB of these runs' records."""
    with tempfile.TemporaryDirectory() as folder:
        for record in _runs(images, classes):
            records.append(Path(folder), record)
        return (Path(folder) / records.RECORDS).stat().st_size / MB


def _by_classes(measure: Callable[[int, int], float], classes: int) -> float:
    return measure(1_000, classes)


def _by_images(measure: Callable[[int, int], float], images: int) -> float:
    return measure(images, 10)


Line = tuple[str, tuple[int, ...], Callable[[int], float]]
SECONDS: tuple[Line, ...] = (
    (f"statistics of {RUNS} runs, by test images", (1_000, 4_000, 16_000), partial(_by_images, statistics)),
    (f"statistics of {RUNS} runs, by classes", (10, 100, 1_000), partial(_by_classes, statistics)),
)
MEGABYTES: tuple[Line, ...] = (
    (f"images of {SIDE} px decoded to disk", (500, 2_000, 8_000), decoding),
    (f"records of {RUNS} runs, by test images", (1_000, 4_000, 16_000), partial(_by_images, stored)),
    (f"records of {RUNS} runs, by classes", (10, 50, 250), partial(_by_classes, stored)),
)
"""What is measured, at which sizes."""
