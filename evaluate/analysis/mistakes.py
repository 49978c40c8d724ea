"""The wrong answers that were given with the highest probability."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from evaluate.analysis.labels import label, title
from evaluate.analysis.predictions import answers
from evaluate.analysis.summary import arms
from evaluate.records.records import Record

SHOWN = 12


def worst(records: Iterable[Record]) -> list[dict[str, Any]]:
    """The 12 wrong answers given with the highest probability, one entry a test image.

    Each has ``file``, ``truth``, ``predicted``, ``probability`` (the highest over all runs), ``arm``
    (which run gave it), and ``wrong`` of ``runs``: how many of all runs get the image wrong.
    """
    wrong: dict[str, list[dict[str, Any]]] = defaultdict(list)
    tested: Counter[str] = Counter()
    for arm, runs in arms(records).items():
        where = {"arm": label(arm), "part": title(arm).split(":")[0]}
        for said in map(answers, runs):
            tested.update(said.files)
            for row in np.flatnonzero(~said.right):
                answer = said.predicted[row]
                shown = {
                    "predicted": said.classes[answer],
                    "probability": float(said.probabilities[row, answer]),
                }
                wrong[said.files[row]].append({"truth": said.classes[said.truth[row]], **shown, **where})
    entries = []
    for file, given in wrong.items():
        surest = max(given, key=lambda answer: float(answer["probability"]))
        entries.append({"file": file, **surest, "wrong": len(given), "runs": tested[file]})
    return sorted(entries, key=lambda entry: (-entry["probability"], -entry["wrong"], entry["file"]))[:SHOWN]
