"""What the report page shows of one table of arms: figures, matrices and curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluate.analysis.analyse import Analysis, MixingChoice
from evaluate.analysis.external_sets import ExternalResult
from evaluate.analysis.labels import control, label, maker, quoted, title
from evaluate.analysis.strata import CLASS, Stratum
from evaluate.analysis.student_report import Reference
from evaluate.analysis.summary import AVERAGED, PLAIN, UNION, Row, arm_of, table_of
from evaluate.experiment.image_sets import OWN
from evaluate.generators import NONE
from evaluate.records.records import Record
from evaluate.report import figures

CHARTED = 8
"""Classes up to which their recalls are drawn."""
LISTED = 20
"""Classes up to which all of them, and the whole confusion matrices, are shown; of more, the worst ones."""
NAMES = dict(zip(AVERAGED, ("Precision", "Recall", "F1", "ROC-AUC"), strict=True))
EXPLAINED = {
    ("ratio", "substitute"): "The number of training images stays the same; synthetic ones take the place of "
    "real ones.",
    ("ratio", "augment"): "Every real training image stays; synthetic images are added.",
    ("shots", "augment"): "A few real training images of each class, alone and with synthetic images.",
    (
        "fold",
        "substitute",
    ): "Every real image is tested once per repeat, by classifiers that have not seen it; "
    "synthetic images take the place of real ones.",
    ("fold", "augment"): "Every real image is tested once per repeat, by classifiers that have not seen it; "
    "synthetic images are added to the others.",
}


def sections(
    records: Sequence[Record], analysis: Analysis, generator: Sequence[str], reference: Reference | None
) -> list[dict[str, Any]]:
    """One entry a table of arms, in the order of the rows, for ``results.html.j2``.

    ``generator`` says what the generator of the given synthetic images has seen.
    """
    tables = dict.fromkeys(table_of(row.arm) for row in analysis.rows)
    return [_section(table, records, analysis, generator, reference) for table in tables]


def _section(
    table: tuple[str, str],
    records: Sequence[Record],
    analysis: Analysis,
    generator: Sequence[str],
    reference: Reference | None,
) -> dict[str, Any]:
    rows = [row for row in analysis.rows if table_of(row.arm) == table]
    own = [record for record in records if table_of(arm_of(record)) == table]
    strata = [entry for entry in analysis.strata if table_of(entry.arm) == table]
    arms = [_arm(row, own, strata, reference) for row in rows]
    classes = list(own[0]["classes"])
    whole = len(classes) <= LISTED
    return {
        "title": title(rows[0].arm),
        "explained": EXPLAINED.get(table, ""),
        "generator": [OWN[table[0]]] if table[0] != "ratio" else generator,
        "steps": "/".join(map(str, sorted({record["steps"] for record in own}))),
        "arms": arms,
        "classes": classes,
        "listed": classes if whole else _worst(arms, classes),
        "whole": whole,
        "quoted": any(arm["quoted"] for arm in arms),
        "curves": _curves(arms, own),
        "strata": _grouped([entry for entry in strata if entry.what != CLASS]),
        "elsewhere": _by_set([found for found in analysis.elsewhere if table_of(found.arm) == table]),
        "screens": [one for one in analysis.screens if table_of(one.arm) == table],
        "choices": _alike([choice for choice in analysis.choices if table_of(choice.arm) == table]),
        "generators": [one for one in analysis.generators if table_of(one.arm) == table],
    }


def _arm(
    row: Row, records: Sequence[Record], strata: Sequence[Stratum], reference: Reference | None
) -> dict[str, Any]:
    runs = [record for record in records if arm_of(record) == row.arm]
    confusion = np.sum([run["confusion"] for run in runs], axis=0)
    totals = confusion.sum(axis=1)
    recalls = {entry.kind: entry for entry in strata if entry.arm == row.arm and entry.what == CLASS}
    classes = runs[0]["classes"]
    return {
        "row": row,
        "label": label(row.arm),
        "quoted": quoted(row.arm, reference),
        "confusion": confusion.tolist(),
        "totals": totals.tolist(),
        "mistakes": _mistakes(confusion, classes),
        "recalls": recalls,
        "recall": {name: recalls[name].accuracy.mean if name in recalls else None for name in classes},
    }


def _worst(arms: Sequence[dict[str, Any]], classes: Sequence[str]) -> list[str]:
    """The classes of lowest recall in any arm, the lowest first."""

    def lowest(name: str) -> float:
        return min((arm["recall"][name] for arm in arms if arm["recall"][name] is not None), default=1.0)

    return sorted(classes, key=lowest)[:LISTED]


def _mistakes(confusion: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs of classes that are confused most often: truth, prediction, count, images of the truth."""
    wrong = np.where(np.eye(len(classes), dtype=bool), 0, confusion)
    totals = confusion.sum(axis=1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:LISTED]
    pairs = (np.unravel_index(place, wrong.shape) for place in order)
    return [
        {
            "truth": classes[t],
            "predicted": classes[p],
            "count": int(wrong[t, p]),
            "of": int(totals[t]),
        }
        for t, p in pairs
        if wrong[t, p]
    ]


def _curves(arms: Sequence[dict[str, Any]], records: Sequence[Record]) -> dict[str, Any]:
    """Names of curves -> data URIs; ``metrics`` is a list of them with the metric's name."""
    found: dict[str, Any] = {"accuracy": None, "shots": None, "recall": None, "metrics": []}
    if arms[0]["row"].arm.shots is not None:
        return found | {"shots": figures.shots_curve(_low_shot([arm["row"] for arm in arms]))}
    total = arms[0]["row"].arm.total
    first = next((arm["row"].arm.generator for arm in arms if arm["row"].n_synthetic), NONE)
    mixtures = [arm for arm in arms if _plain(arm["row"], total, first)]
    rows = [arm["row"] for arm in mixtures]
    others = _others([arm["row"] for arm in arms if arm not in mixtures], total)
    if not rows or len({arm["row"].arm.ratio for arm in arms}) < 2:
        return found
    kinds = {row.arm for row in rows}
    runs = [(record["ratio"], record["accuracy"]) for record in records if arm_of(record) in kinds]
    known = {arm["row"].arm.ratio: arm["quoted"] for arm in mixtures if arm["quoted"]}
    found["accuracy"] = figures.ratio_curve(rows, runs, others, known)
    if len(rows) < 2:
        return found
    ratios, classes = [row.arm.ratio for row in rows], list(records[0]["classes"])
    recalls = {name: [arm["recall"][name] for arm in mixtures] for name in classes}
    return found | {
        "recall": figures.recall_chart(ratios, recalls) if len(classes) <= CHARTED else None,
        "metrics": [
            {"name": name, "src": figures.metric_curve(rows, metric, name, known)}
            for metric, name in NAMES.items()
        ],
    }


def _plain(row: Row, total: int, generator: str) -> bool:
    arm = row.arm
    of_one = arm.ratio == 1 or arm.generator == generator
    return arm.kind in PLAIN and arm.mixing == UNION and arm.total == total and of_one


def _low_shot(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by what joins the real images."""
    lines: dict[str, list[Row]] = {}
    for row in rows:
        mixing = "" if row.arm.mixing == UNION else f", {row.arm.mixing}"
        mixed = f"real + {maker(row.arm)}{mixing}"
        lines.setdefault("real alone" if row.arm.ratio == 1 else mixed, []).append(row)
    return lines


def _others(rows: Sequence[Row], total: int) -> dict[str, list[Row]]:
    """Controls, other generators and ways of mixing, and mixtures of another ``total``, by name."""
    lines: dict[str, list[Row]] = {}
    for row in rows:
        kind = "" if row.arm.kind in PLAIN else control(row.arm.kind)
        mixing = "" if row.arm.mixing == UNION else row.arm.mixing
        images = f"{row.arm.total:,} images" if row.arm.total != total else ""
        name = ", ".join(filter(None, (maker(row.arm), kind, mixing, images)))
        lines.setdefault(name or row.arm.generator, []).append(row)
    return lines


def _alike(choices: Sequence[MixingChoice]) -> list[list[MixingChoice]]:
    """The choices, those with the same candidates, chosen in the same way, together."""
    found: dict[tuple[object, ...], list[MixingChoice]] = {}
    for choice in choices:
        found.setdefault((*choice.tried, bool(choice.errors), bool(choice.recipe)), []).append(choice)
    return list(found.values())


def _by_set(entries: Sequence[ExternalResult]) -> dict[str, list[ExternalResult]]:
    names = dict.fromkeys(entry.name for entry in entries)
    return {name: [entry for entry in entries if entry.name == name] for name in names}


def _grouped(entries: Sequence[Stratum]) -> list[dict[str, Any]]:
    """Entries of one table, by the arm's label in order."""
    names = dict.fromkeys(label(entry.arm) for entry in entries)
    return [{"label": n, "entries": [entry for entry in entries if label(entry.arm) == n]} for n in names]
