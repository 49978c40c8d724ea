"""Records of runs that never happened: which images are right is given, the rest follows."""

from collections.abc import Sequence

import numpy as np

from evaluate.metrics import score

CLASSES = ("apple", "banana", "orange")
SURE = 0.8


def run(
    right: Sequence[bool], *, classes: Sequence[str] = CLASSES, files: Sequence[str] = (), **more
) -> dict:
    """A record whose n-th image, of the n-th class in turn, is classified rightly or as the next class."""
    count = len(classes)
    ratio = more.setdefault("ratio", 1.0)
    truth = [classes[i % count] for i in range(len(right))]
    # A little noise, the same for the same seed, so that no two probabilities are equal.
    noise = np.random.default_rng([more.get("seed", 0), round(100 * ratio)]).random((len(right), count))
    p = np.full((len(right), count), (1 - SURE) / (count - 1)) + 0.01 * noise
    for i, good in enumerate(right):
        p[i, (i + (not good)) % count] = SURE
    p /= p.sum(axis=1, keepdims=True)
    names = files or [f"test/{i}.jpg" for i in range(len(right))]
    predictions = [
        {"file": name, "truth": t, "probabilities": dict(zip(classes, map(float, row), strict=True))}
        for name, t, row in zip(names, truth, p, strict=True)
    ]
    shots = more.get("shots")
    kind = {"arm": "ratio"} if shots is None else {"arm": "shots", "design": "augment"}
    plain = {"design": "substitute", "shots": None, "seed": 0, "steps": 400, **kind}
    counts = {"n_real": round(200 * ratio), "n_synthetic": round(200 * (1 - ratio))}
    record = {**plain, **counts, **score(truth, p, classes), "classes": list(classes), "seconds": 1.5}
    return {**record, "predictions": predictions, **more}


def wrong_at(n: int, *places: int) -> list[bool]:
    """n answers, right but for those at ``places``."""
    return [i not in places for i in range(n)]


def sweep(wrong: dict[float, Sequence[Sequence[int]]], n: int = 30, **more) -> list[dict]:
    """Ratio -> the places that each seed gets wrong -> records of a ratio sweep."""
    return [
        run(wrong_at(n, *places), ratio=ratio, seed=seed, **more)
        for ratio, seeds in wrong.items()
        for seed, places in enumerate(seeds)
    ]
