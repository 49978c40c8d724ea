"""The results as a table in the terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluate import wording
from evaluate.reference import MODELS, Reference
from evaluate.statistics import AVERAGED, Row
from evaluate.wording import label, p_value, points, quoted, share, spread

LABEL = 16
"""Columns of an arm's name, so that a table fits a terminal of 80."""


def print_table(rows: Sequence[Row], reference: Reference | None, console: Console) -> None:
    """One table a design or kind: weighted averages above macro ones, the student report beneath its arms."""
    for title in dict.fromkeys(wording.title(row.arm) for row in rows):
        arms = [row for row in rows if wording.title(row.arm) == title]
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
