"""What an experiment shows in the end: numbers as files, the report page, the table in the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluate.analysis import external_sets, fairness, labels
from evaluate.analysis.analyse import Analysis, analyse
from evaluate.analysis.labels import label, p_value, points, quoted, share, spread
from evaluate.analysis.strata import describe
from evaluate.analysis.student_report import MODELS, Reference
from evaluate.analysis.summary import AVERAGED, Row
from evaluate.config import Evaluate
from evaluate.experiment.image_sets import Sets, generator_notes
from evaluate.experiment.shown_images import ShownImages
from evaluate.records import combine
from evaluate.records import records as lines
from evaluate.report import context, export, fidelity, html_page, recipe_files
from evaluate.report.pictures import ReadPixels
from orchard.classifiers.embeddings import Embed
from orchard.cli.terminal import say

PAGE = "report.html"


def publish(
    console: Console,
    config: Evaluate,
    sets: Sets,
    shown: Sequence[ShownImages],
    networks: Mapping[str, Embed],
    read: ReadPixels,
) -> tuple[Analysis, Path]:
    """Write the numbers and the page from the records, print what they say, and return both.

    ``networks`` measure how far the images of ``shown`` lie apart, the first of which the page also shows;
    ``read`` brings photos to their pixels.

    Raises:
        UserError: no record, or records that do not belong together.
    """
    records = combine.read(config.output, config.also)
    html_page.require_records(records)
    tested = context.tested_photos(records, sets)
    distances = fidelity.measure(config.output, config.also, shown, networks, read)
    analysis = analyse(records, config.margin, describe(tested), distances.generators)
    around = context.gather(config, sets, shown[0], distances, records, tested, networks, read)
    export.write(records, analysis, config.output)
    page = html_page.write(records, analysis, around, config.output / PAGE)
    print_table(analysis.rows, around.reference, console)
    for line in filter(None, (analysis.verdict, *analysis.on_other_sets, analysis.basis, analysis.caveat)):
        say(console, line)
    for line in analysis.fairness[: fairness.SHOWN]:
        say(console, f"warning: {line}")
    if more := analysis.fairness[fairness.SHOWN :]:
        say(console, f"warning: the lowest recall falls in {len(more)} more arms, which the page names")
    for found in analysis.elsewhere:
        say(console, external_sets.line(found))
    for note in (*around.notes, *generator_notes(config, sets)):
        say(console, f"note: {note}")
    if around.copies:
        say(console, f"copies: {around.copies}")
    for line in recipe_files.write(lines.read(config.output), config, sets):
        say(console, f"search: {line}")
    written = (lines.RECORDS, export.RUNS, export.ARMS, export.ANALYSIS)
    say(console, f"wrote {config.output}/: {', '.join(written)}")
    say(console, f"report: {page.resolve()}")
    return analysis, page


LABEL = 16
"""Columns of an arm's name, so that a table fits a terminal of 80."""


def print_table(rows: Sequence[Row], reference: Reference | None, console: Console) -> None:
    """One table a design or kind: weighted averages above macro ones, the student report beneath its arms."""
    for title in dict.fromkeys(labels.title(row.arm) for row in rows):
        arms = [row for row in rows if labels.title(row.arm) == title]
        table = Table(title=Text(title), caption=_caption(arms, reference), box=box.SIMPLE, pad_edge=False)
        table.padding = (0, 1, 0, 0)
        table.add_column("real/synthetic", max_width=LABEL)
        for name in ("accuracy", "Δ points", "precision", "recall", "F1", "ROC-AUC"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in arms:
            table.add_row(*_cells(row))
            known = quoted(row.arm, reference)
            if known:
                figures = [f"{known[metric]:.4f}" for metric in AVERAGED]
                name = f"report {MODELS.get(row.arm.ratio, '')}".strip()
                table.add_row(name, f"{known['accuracy']:.4f}", "", *figures, style="dim")
            table.add_section()
        console.print(table)


def _cells(row: Row) -> list[Text]:
    low, high = row.interval
    change = points(row.change.points if row.change else None)
    if row.change and row.change.p_mean is not None and not row.change.one_seed:
        change += f"\np {p_value(row.change.p_mean)}"
    return [
        Text(f"{label(row.arm)}\n{row.n_real}/{row.n_synthetic}"),
        Text(f"{spread(row.weighted['accuracy'])}\n[{low:.3f}, {high:.3f}]"),
        Text(change),
        *(Text(f"{share(row.weighted[m].mean)}\n{share(row.macro[m].mean)}") for m in AVERAGED),
    ]


def _caption(rows: Sequence[Row], reference: Reference | None) -> Text:
    runs = sorted({row.runs for row in rows})
    lines = [
        f"accuracy: mean ± sd over {'/'.join(map(str, runs))} runs, [95% interval]; p: of the mean",
        "precision to ROC-AUC: weighted by support, macro beneath",
    ]
    if any(quoted(row.arm, reference) for row in rows):
        lines.append("report model: the student report's figures, weighted, one run each")
    return Text("\n".join(lines))
