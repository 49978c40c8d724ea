"""The loss curve of an adapter as a picture, drawn from its log."""

import json
from pathlib import Path

import numpy as np

from orchard.run import whole_file

WINDOW = 0.05
"""Share of the steps that the smoothed line averages over."""


def write(log: Path, path: Path, title: str) -> None:
    """Draw the losses in ``log`` (one JSON line a step) into a PNG, whole or not at all."""
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps, losses = (np.array([line[key] for line in lines]) for key in ("step", "loss"))
    held_out = [(line["step"], line["validation_loss"]) for line in lines if "validation_loss" in line]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    panels = figure.subplots(1, 2 if held_out else 1, squeeze=False)[0]
    panels[0].plot(steps, losses, color="#56b4e9", lw=0.6, alpha=0.7, label="each step")
    panels[0].plot(steps, smoothed(losses), color="#0072b2", lw=2, label="running mean")
    panels[0].set(title="training, as weighted")
    panels[0].legend(frameon=False)
    if held_out:
        # A panel of its own: this loss is not weighted, so the two are of different sizes.
        panels[1].plot(*zip(*held_out, strict=True), "o-", color="#d55e00", ms=4)
        panels[1].set(title="held-out photos, unweighted")
    for panel in panels:
        panel.set(xlabel="step", ylabel="loss")
        panel.spines[["top", "right"]].set_visible(False)
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
