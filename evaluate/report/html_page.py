"""The report page: one HTML file that needs nothing else, a pure function of the records and the context."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluate.analysis import fairness, labels
from evaluate.analysis.analyse import Analysis
from evaluate.analysis.mistakes import worst
from evaluate.analysis.significance import images_needed
from evaluate.analysis.student_report import MODELS, Reference
from evaluate.analysis.summary import Row, table_of
from evaluate.analysis.verdict import main, why
from evaluate.gap.feature_metrics import Gap, Gaps
from evaluate.records.records import Record
from evaluate.report import figures
from evaluate.report.sections import LISTED, NAMES, sections
from orchard.errors import UserError
from orchard.files.atomic import whole_file

DRAWN = 12
"""Arms that the figure of the head takes."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the page says beyond the records; images are data URIs."""

    title: str
    """Name of the data, for the heading."""
    commands: Sequence[str]
    """The commands that made the records."""
    notes: Sequence[str] = ()
    """Warnings that stand at the top and beside every results table."""
    generator: Sequence[str] = ()
    """What the generator of the given synthetic images has seen, sentence by sentence."""
    shown: str = ""
    """The arm whose images are shown and measured, where arms have generators of their own."""
    rejections: Mapping[str, int] = field(default_factory=dict)
    """Screen -> synthetic images that it rejected."""
    copies: str = ""
    """How many synthetic images are near copies of real ones, in a sentence."""
    audit: Sequence[str] = ()
    """What an audit found of the synthetic images and their adapters, in sentences."""
    gaps: Gaps = field(default_factory=dict)
    """The domain gap in the features of each network."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    commits: Sequence[str] = ()
    """Those that the classifiers were trained at; one of a checkout with changes ends in ``+``."""
    sheets: Sequence[Mapping[str, Any]] = ()
    """As `evaluate.report.pictures.sheets`."""
    pictures: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Test file -> the image and the nearest of each pool, as `evaluate.report.pictures.beside`."""
    near: str = "plain pixels"
    """The network in whose features those are nearest."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """What was compared -> SHA-256."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where the images and the generator come from, as JSON values."""
    reference: Reference | None = None
    """Figures to show beside the plain substitute arms: `student_report.FRUIT` on that set alone."""


def write(records: Sequence[Record], analysis: Analysis, context: Context, out: Path) -> Path:
    """Write the page under ``out``, whole or not at all, and return ``out``."""
    page = render(records, analysis, context)
    with whole_file(out) as aside:
        # File names that are not UTF-8 reach us with lone surrogates.
        aside.write_bytes(page.encode("utf-8", "backslashreplace"))
    return out


def require_records(records: Sequence[Record]) -> None:
    """Raise `UserError` unless there are records, all with one class list."""
    if not records:
        raise UserError("no finished run to report; let `python -m evaluate` finish at least one")
    classes = list(records[0]["classes"])
    for record in records:
        if list(record["classes"]) != classes:
            raise UserError(
                f"records with different classes ({', '.join(classes)} against "
                f"{', '.join(record['classes'])}); use another --output for another set"
            )


def render(records: Sequence[Record], analysis: Analysis, context: Context) -> str:
    """The page as text; ``analysis`` is that of the records. Equal arguments give equal text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(pretty=_pretty)
    for name in (
        "share",
        "spread",
        "percent",
        "number",
        "points",
        "points_between",
        "p_value",
        "label",
        "counted",
    ):
        environment.filters[name] = getattr(labels, name)
    return environment.get_template("report.html.j2").render(
        analysis=analysis,
        context=context,
        **_lead(analysis),
        sections=sections(records, analysis, context.generator, context.reference),
        real_alone=_real_alone(analysis),
        exchange_curves=[figures.exchange_curve(rate) for rate in analysis.exchanges],
        mistakes=worst(records),
        averaged=NAMES,
        auc=_auc_coverage(records),
        models=MODELS,
        told_apart=_told_apart,
        warned=fairness.SHOWN,
        needed={points: images_needed(points / 100) for points in sorted({1.0, analysis.margin, 5.0, 10.0})},
    )


def _lead(analysis: Analysis) -> dict[str, Any]:
    """The figure of the head: the arms of the verdict's own table, or its first ones with the verdict's."""
    compared = [row for row in analysis.rows if row.change is not None]
    lead = main(analysis.rows)
    if lead is None:
        return {"differences": None, "drawn": [], "compared": 0, "why": ""}
    alike = [row for row in compared if table_of(row.arm) == table_of(lead.arm)]
    first = alike[: DRAWN - 1] if lead in alike[: DRAWN - 1] else [*alike[: DRAWN - 1], lead]
    drawn = alike if len(alike) <= DRAWN else first
    return {
        "differences": figures.differences(drawn, lead, analysis.margin),
        "drawn": drawn,
        "compared": len(compared),
        "why": why(lead, compared) if len(drawn) > 1 else "",
    }


def _real_alone(analysis: Analysis) -> Row | None:
    """The arm of the most real images and no others, the first of equals."""
    alone = [row for row in analysis.rows if row.arm.ratio == 1 and row.change is None]
    return max(alone, key=lambda row: row.n_real, default=None)


def _told_apart(gap: Gap) -> list[str]:
    """The classes of a gap in order; of many, those that are told apart best."""
    found = gap.discriminator
    if len(found) <= LISTED:
        return list(found)
    return sorted(found, key=lambda name: -(area.area if (area := found[name]) else 0.0))[:LISTED]


def _auc_coverage(records: Sequence[Record]) -> list[str] | None:
    """Classes whose ROC-AUC is defined in every run; `None` when that is all of them."""
    names = records[0]["classes"]
    covered = [n for n in names if all(r["per_class"][n]["roc_auc"] is not None for r in records)]
    return covered if len(covered) < len(names) else None


def _pretty(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return str(value)
