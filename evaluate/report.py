"""The report page: one HTML file that needs nothing else, a pure function of the records."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluate import figures, table
from evaluate.reference import MODELS, Reference
from evaluate.statistics import AVERAGED, Record, Row, predicted, summarise
from orchard.errors import UserError
from orchard.run import whole_file

SHEET, MISTAKES, CHARTED = 8, 12, 8
TITLES = {"substitute": "Substitute: real images replaced", "augment": "Augment: synthetic images added"}
EXPLAINED = {
    "substitute": "The number of training images stays the same; synthetic ones take the place of real ones.",
    "augment": "Every real training image stays; synthetic images are added.",
}


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the page says beyond the records."""

    title: str
    """Name of the data, for the heading."""
    command: str
    """The command that made the records."""
    notes: Sequence[str] = ()
    """Warnings that stand at the top and beside every results table."""
    generator: Sequence[str] = ()
    """What the generator of the synthetic images has seen, sentence by sentence."""
    copies: str = ""
    """How many synthetic images are near copies of real ones, in a sentence."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    sheet: Mapping[str, Mapping[str, Sequence[np.ndarray]]] = field(default_factory=dict)
    """Class -> ``real`` and ``synthetic`` -> (H, W, 3) uint8 images; the first 8 of each are shown."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where the images and the generator come from, as JSON values."""
    reference: Reference | None = None
    """Figures to show beside the plain substitute arms; `evaluate.reference.FRUIT` on that set alone."""


def write(records: Sequence[Record], context: Context, out: Path) -> Path:
    """Write the page under ``out``, whole or not at all, and return ``out``.

    Raises:
        UserError: no records, or records with different class lists.
    """
    page = render(records, context)
    with whole_file(out) as aside:
        # File names that are not UTF-8 reach us with lone surrogates.
        aside.write_bytes(page.encode("utf-8", "backslashreplace"))
    return out


def render(records: Sequence[Record], context: Context) -> str:
    """The page as text; equal records and context give equal text. Errors as in `write`."""
    if not records:
        raise UserError("no finished run to report; let `python -m evaluate` finish at least one")
    classes = list(records[0]["classes"])
    for record in records:
        if list(record["classes"]) != classes:
            raise UserError(
                f"records with different classes ({', '.join(classes)} against "
                f"{', '.join(record['classes'])}); use another --output for another set"
            )
    rows = summarise(records)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        share=table.share,
        points=table.points,
        p_value=table.p_value,
        pretty=_pretty,
        thumbnail=figures.thumbnail,
    )
    return environment.get_template("report.html.j2").render(
        context=context,
        verdict=table.verdict(rows),
        sections=[
            _section(design, rows, records, context) for design in dict.fromkeys(r.design for r in rows)
        ],
        limits=table.limits(rows),
        mistakes=mistakes(records),
        averaged=dict(zip(AVERAGED, ("Precision", "Recall", "F1", "ROC-AUC"), strict=True)),
        auc=_auc_coverage(records),
        models=MODELS,
        shown=SHEET,
    )


def mistakes(records: Iterable[Record]) -> list[dict[str, Any]]:
    """The 12 wrong answers given with the highest probability, one entry an arm, file and answer."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    runs: dict[tuple[Any, ...], int] = {}
    for record in records:
        arm = (record["design"], record["ratio"], record["shots"])
        runs[arm] = runs.get(arm, 0) + 1
        for prediction in record["predictions"]:
            answer = predicted(prediction)
            if answer == prediction["truth"]:
                continue
            entry = found.setdefault(
                (*arm, prediction["file"], answer),
                {"file": prediction["file"], "truth": prediction["truth"], "predicted": answer,
                 "arm": arm, "label": table.arm_label(*arm[1:]), "probability": 0.0, "times": 0},
            )  # fmt: skip
            entry["times"] += 1
            entry["probability"] = max(entry["probability"], prediction["probabilities"][answer])
    worst = sorted(found.values(), key=lambda e: (-e["probability"], -e["times"], e["file"]))[:MISTAKES]
    return [{**entry, "runs": runs[entry["arm"]]} for entry in worst]


def _section(design: str, rows: Sequence[Row], records: Sequence[Record], context: Context) -> dict[str, Any]:
    rows = [row for row in rows if row.design == design]
    plain = [row for row in rows if row.shots is None]
    limited = [row for row in rows if row.shots is not None]
    arms = [_arm(row, records, context.reference) for row in rows]
    quoted = {row.ratio: arm["quoted"] for row, arm in zip(rows, arms, strict=True) if arm["quoted"]}
    seeds = [(r["ratio"], r["accuracy"]) for r in records if r["design"] == design and r["shots"] is None]
    classes = list(records[0]["classes"])
    recalls = {name: [arm["recall"][name] for arm in arms if arm["row"].shots is None] for name in classes}
    several = len(plain) > 1
    steps = sorted({r["steps"] for r in records if r["design"] == design})
    return {
        "title": TITLES.get(design, f"Design: {design}"),
        "explained": EXPLAINED.get(design, ""),
        "steps": "/".join(map(str, steps)),
        "generator": "; ".join(context.generator),
        "arms": arms,
        "classes": classes,
        "quoted": bool(quoted),
        "curve": figures.ratio_curve(plain, seeds, quoted) if several else None,
        "recall": figures.recall_chart([r.ratio for r in plain], recalls)
        if several and len(classes) <= CHARTED else None,
        "shots": figures.shots_curve(limited) if limited else None,
    }  # fmt: skip


def _arm(row: Row, records: Sequence[Record], reference: Reference | None) -> dict[str, Any]:
    key = (row.design, row.ratio, row.shots)
    runs = [r for r in records if (r["design"], r["ratio"], r["shots"]) == key]
    confusion = np.sum([run["confusion"] for run in runs], axis=0)
    totals = confusion.sum(axis=1)
    classes = runs[0]["classes"]
    return {
        "row": row,
        "label": table.arm_label(row.ratio, row.shots),
        "quoted": table.quoted(row, reference),
        "confusion": confusion.tolist(),
        "totals": totals.tolist(),
        "recall": {
            name: float(confusion[k, k] / totals[k]) if totals[k] else None for k, name in enumerate(classes)
        },
    }


def _auc_coverage(records: Iterable[Record]) -> list[str] | None:
    """Classes whose ROC-AUC is defined in every run; `None` when that is all of them."""
    records = list(records)
    names = records[0]["classes"]
    covered = [n for n in names if all(r["per_class"][n]["roc_auc"] is not None for r in records)]
    return covered if len(covered) < len(names) else None


def _pretty(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return str(value)
