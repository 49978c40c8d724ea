"""Membership inference: who was in the training set, told by a score of each photo."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from evaluate.analysis.intervals import Interval, auc_interval, mean_interval

ALL = "all"
CHANCE = 0.5


@dataclass(frozen=True, kw_only=True)
class Attack:
    """How well a score tells photos that were trained on from others."""

    subject: str
    """The adapter's file, its class where it has several, or the class of a set; `ALL` for their mean."""
    kind: str
    """What the score is."""
    members: int
    others: int
    auc: float
    """How often a member scores above another photo, ties by half: 0.5 is chance, 1 gives all away."""
    interval: Interval
    """95%, `auc_interval`."""


def attack(subject: str, kind: str, members: Sequence[float], others: Sequence[float]) -> Attack:
    """Scores of photos that were trained on, and of others; higher means more like one trained on."""
    truth = np.repeat([1, 0], [len(members), len(others)])
    auc = float(roc_auc_score(truth, [*members, *others]))
    return Attack(
        subject=subject,
        kind=kind,
        members=len(members),
        others=len(others),
        auc=auc,
        interval=auc_interval(auc, len(members), len(others)),
    )


def mean(attacks: Sequence[Attack]) -> Attack:
    """The mean of attacks of one kind, no two of which are on the same photo.

    It is that of the areas: each adapter and class has its own scale of scores.
    """
    areas = [one.auc for one in attacks]
    return Attack(
        subject=ALL,
        kind=attacks[0].kind,
        members=sum(one.members for one in attacks),
        others=sum(one.others for one in attacks),
        auc=float(np.mean(areas)),
        interval=mean_interval(areas, [one.interval for one in attacks]),
    )


def sentence(found: Attack) -> str:
    """What it came to, for people."""
    low, high = found.interval
    if low > CHANCE:
        meaning = "members are told from others"
    elif high < CHANCE:
        meaning = "members score below others: the two differ in something else"
    else:
        meaning = "not told from chance, by this attack"
    return (
        f"{found.subject}, {found.kind}: AUC {found.auc:.3f} ({low:.3f} to {high:.3f}) of {found.members} "
        f"members and {found.others} others, {meaning}"
    )
