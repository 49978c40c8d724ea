"""What the report page shows of one design: its tables, matrices and curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluate import figures
from evaluate.analysis import Analysis
from evaluate.answers import Record
from evaluate.reference import Reference
from evaluate.statistics import AVERAGED, PLAIN, UNION, Row, arm_of
from evaluate.wording import label, quoted

CHARTED = 8
"""Classes up to which their recalls are drawn."""
NAMES = dict(zip(AVERAGED, ("Precision", "Recall", "F1", "ROC-AUC"), strict=True))
TITLES = {
    "substitute": "Substitute: real images replaced",
    "augment": "Augment: synthetic images added",
}
EXPLAINED = {
    "substitute": "The number of training images stays the same; synthetic ones take the place of real ones.",
    "augment": "Every real training image stays; synthetic images are added.",
}


def sections(
    records: Sequence[Record], analysis: Analysis, reference: Reference | None
) -> list[dict[str, Any]]:
    """One entry a design, in the order of the rows, for ``results.html.j2``."""
    designs = dict.fromkeys(row.arm.design for row in analysis.rows)
    return [_section(design, records, analysis, reference) for design in designs]


def _section(
    design: str, records: Sequence[Record], analysis: Analysis, reference: Reference | None
) -> dict[str, Any]:
    rows = [row for row in analysis.rows if row.arm.design == design]
    own = [record for record in records if record["design"] == design]
    arms = [_arm(row, own, reference) for row in rows]
    return {
        "title": TITLES.get(design, f"Design: {design}"),
        "explained": EXPLAINED.get(design, ""),
        "steps": "/".join(map(str, sorted({record["steps"] for record in own}))),
        "arms": arms,
        "classes": list(own[0]["classes"]),
        "quoted": any(arm["quoted"] for arm in arms),
        "curves": _curves(arms, own),
        "strata": _grouped(analysis.strata, design),
        "elsewhere": _grouped(analysis.elsewhere, design),
    }


def _arm(row: Row, records: Sequence[Record], reference: Reference | None) -> dict[str, Any]:
    runs = [record for record in records if arm_of(record) == row.arm]
    confusion = np.sum([run["confusion"] for run in runs], axis=0)
    totals = confusion.sum(axis=1)
    classes = runs[0]["classes"]
    return {
        "row": row,
        "label": label(row.arm),
        "quoted": quoted(row.arm, reference),
        "confusion": confusion.tolist(),
        "totals": totals.tolist(),
        "recall": {
            name: float(confusion[k, k] / totals[k]) if totals[k] else None for k, name in enumerate(classes)
        },
    }


def _curves(arms: Sequence[dict[str, Any]], records: Sequence[Record]) -> dict[str, Any]:
    """Names of curves -> data URIs; ``metrics`` is a list of them with the metric's name."""
    plain = [arm for arm in arms if arm["row"].arm.kind in PLAIN and arm["row"].arm.mixing == UNION]
    low_shot = [arm["row"] for arm in plain if arm["row"].arm.shots is not None]
    mixtures = [arm for arm in plain if arm["row"].arm.shots is None]
    found: dict[str, Any] = {"accuracy": None, "recall": None, "metrics": []}
    found["shots"] = figures.shots_curve(low_shot) if low_shot else None
    rows = [arm["row"] for arm in mixtures]
    ratios = [row.arm.ratio for row in rows]
    if len(ratios) < 2:
        return found
    kinds = {row.arm for row in rows}
    runs = [(record["ratio"], record["accuracy"]) for record in records if arm_of(record) in kinds]
    known = {arm["row"].arm.ratio: arm["quoted"] for arm in mixtures if arm["quoted"]}
    classes = list(records[0]["classes"])
    recalls = {name: [arm["recall"][name] for arm in mixtures] for name in classes}
    return found | {
        "accuracy": figures.ratio_curve(rows, runs, known),
        "recall": figures.recall_chart(ratios, recalls) if len(classes) <= CHARTED else None,
        "metrics": [
            {"name": name, "src": figures.metric_curve(rows, metric, name, known)}
            for metric, name in NAMES.items()
        ],
    }


def _grouped(entries: Sequence[Any], design: str) -> list[dict[str, Any]]:
    """Entries with an ``arm``, those of one design, by the arm's label in order."""
    own = [entry for entry in entries if entry.arm.design == design]
    names = dict.fromkeys(label(entry.arm) for entry in own)
    return [{"label": n, "entries": [entry for entry in own if label(entry.arm) == n]} for n in names]
