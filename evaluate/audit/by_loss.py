"""Attacks on adapters, from the losses of single photos that `python -m finetune.losses` has measured."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from evaluate.audit import attacks
from evaluate.audit.attacks import Attack

LOSS, GAIN = "loss", "loss against the base's"
"""Members have a low loss with the adapter; one far below that of the base alone."""


def of_adapter(measured: Mapping[str, Any]) -> list[Attack]:
    """An entry of the measured losses -> the attacks on its adapter.

    Both are class by class, since losses of different classes do not compare.
    """
    found = []
    for label in measured["classes"]:
        own = [photo for photo in measured["photos"] if photo["label"] == label]
        subject = measured["file"] if len(measured["classes"]) == 1 else f"{measured['file']}, {label}"
        sides = [[photo for photo in own if photo["member"] == member] for member in (True, False)]
        if all(sides):
            loss = ([-photo["adapted"] for photo in side] for side in sides)
            gain = ([photo["base"] - photo["adapted"] for photo in side] for side in sides)
            found += [attacks.attack(subject, LOSS, *loss), attacks.attack(subject, GAIN, *gain)]
    return found


def means(measured: Sequence[Mapping[str, Any]]) -> list[Attack]:
    """The mean of each kind over several, unless two adapters were measured on the same photos."""
    seen = [{photo["sha256"] for photo in one["photos"]} for one in measured]
    if any(one & other for one, other in combinations(seen, 2)):
        return []
    every = [one for entry in measured for one in of_adapter(entry)]
    of_kinds = [[one for one in every if one.kind == kind] for kind in (LOSS, GAIN)]
    return [attacks.mean(kind) for kind in of_kinds if len(kind) > 1]
