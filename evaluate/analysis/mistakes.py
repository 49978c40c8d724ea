"""The wrong answers that were given with the highest probability."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from evaluate.analysis.labels import label, title
from evaluate.analysis.predictions import predicted
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
        for prediction in (prediction for run in runs for prediction in run["predictions"]):
            tested[prediction["file"]] += 1
            answer = predicted(prediction)
            if answer != prediction["truth"]:
                given = {"predicted": answer, "probability": prediction["probabilities"][answer]}
                where = {"arm": label(arm), "part": title(arm).split(":")[0]}
                wrong[prediction["file"]].append({"truth": prediction["truth"], **given, **where})
    entries = []
    for file, answers in wrong.items():
        surest = max(answers, key=lambda answer: float(answer["probability"]))
        entries.append({"file": file, **surest, "wrong": len(answers), "runs": tested[file]})
    return sorted(entries, key=lambda entry: (-entry["probability"], -entry["wrong"], entry["file"]))[:SHOWN]
