"""Experiments of which the truth is known, to see how often intervals hold: answers of two arms.

python tests/helpers/experiments.py prints the table of docs/report.md.
"""

import math
from collections.abc import Iterator

import numpy as np
from scipy.special import expit

from evaluate.analysis.intervals import Interval, accuracy_interval, difference_interval


class Arms:
    """Two arms whose classifiers err by their seed, their arm and the image's difficulty, and by chance."""

    def __init__(self, levels, difficulty=3.0, own=1.0, seed_effect=0.5):
        self.levels, self.spreads = levels, (difficulty, own, seed_effect)
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        total = math.hypot(*self.spreads)
        self.truth = [float(weights @ expit(level + total * nodes) / weights.sum()) for level in levels]

    def draw(self, rng, seeds, images):
        """(2, seeds, images) answers, 1 for right."""
        difficulty, own, seed_effect = self.spreads
        logits = np.array(self.levels)[:, None, None] + difficulty * rng.normal(size=images)
        logits = logits + own * rng.normal(size=(2, 1, images)) + seed_effect * rng.normal(size=(2, seeds, 1))
        return (rng.random((2, seeds, images)) < expit(logits)).astype(float)

    def experiments(self, seeds: int, images: int, count: int) -> Iterator[np.ndarray]:
        """``count`` of them, the same ones every time."""
        rng = np.random.default_rng(seeds * images)
        for _ in range(count):
            yield self.draw(rng, seeds, images)


ARMS = {
    "near the top": Arms((7.0, 5.5)),
    "in the middle": Arms((2.5, 1.8)),
    "in the middle, training a lottery": Arms((2.5, 1.8), seed_effect=1.0),
}


def bootstrap(differences: np.ndarray, rng: np.random.Generator, resamples: int = 200) -> Interval:
    """Percentile interval of the mean over seeds and images drawn anew, as it was used before."""
    drawn = [rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n for n in differences.shape]
    means = ((drawn[0] @ differences) * drawn[1]).sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def held(arms: Arms, seeds: int, images: int, count: int) -> tuple[list[int], float]:
    """How often the intervals of difference, accuracy and the bootstrap hold; median width, points."""
    rng, widths, found = np.random.default_rng(0), [], np.zeros(3, dtype=int)
    before, after = arms.truth
    for a, b in arms.experiments(seeds, images, count):
        ends = difference_interval(b - a), accuracy_interval(b), bootstrap(b - a, rng)
        truths = after - before, after, after - before
        found += [low <= truth <= high for (low, high), truth in zip(ends, truths, strict=True)]
        widths.append(100 * (ends[0][1] - ends[0][0]))
    return found.tolist(), float(np.median(widths))


def main(count: int = 400) -> None:
    """Print the table."""
    print("| arms | seeds | images | difference holds | its width, points | bootstrap | accuracy holds |")
    print("|---|---|---|---|---|---|---|")
    for name, arms in ARMS.items():
        truths = " and ".join(f"{truth:.3f}" for truth in arms.truth)
        for seeds in (1, 2, 3, 5):
            for images in (55, 275):
                (difference, accuracy, resampled), width = held(arms, seeds, images, count)
                shares = (f"{100 * value / count:.1f}%" for value in (difference, resampled, accuracy))
                difference_share, resampled_share, accuracy_share = shares
                print(
                    f"| {name} ({truths}) | {seeds} | {images} | {difference_share} | {width:.1f} | "
                    f"{resampled_share} | {accuracy_share} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
