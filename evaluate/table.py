"""The results in words, in the terminal and as CSV, and how numbers are written everywhere."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluate.reference import MODELS, Reference
from evaluate.statistics import ALPHA, AVERAGED, Record, Row, Spread, smallest_detectable
from orchard.run import whole_file

UNDEFINED, NOTHING = "undefined", "\N{EN DASH}"


def arm_label(ratio: float, shots: int | None = None) -> str:
    """What a mixture is called: ``100% real``, ``30/70``, ``100% synthetic``, ``30/70, 4-shot``."""
    real = round(100 * ratio)
    name = {100: "100% real", 0: "100% synthetic"}.get(real, f"{real}/{100 - real}")
    return name if shots is None else f"{name}, {shots}-shot"


def share(value: float | None) -> str:
    """A share from 0 to 1 with three decimals."""
    return UNDEFINED if value is None else f"{value:.3f}"


def spread(value: Spread) -> str:
    """Mean, and the standard deviation where there is one."""
    return share(value.mean) + ("" if value.sd is None else f" ± {value.sd:.3f}")


def points(value: float | None) -> str:
    """A signed difference in percentage points with one decimal; a rounded zero has no sign."""
    if value is None:
        return NOTHING
    return "0.0" if abs(value) < 0.05 else f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def p_value(value: float | None) -> str:
    """A p value to two digits, as ``= 0.03`` or ``< 0.001``."""
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"= {value:.3f}" if value < 0.0995 else f"= {value:.2f}"


def quoted(row: Row, reference: Reference | None) -> dict[str, float] | None:
    """The reference's figures for this arm, if it has any: plain arms of the substitute design."""
    if reference is None or row.design != "substitute" or row.shots is not None:
        return None
    return next((dict(known) for ratio, known in reference.items() if abs(ratio - row.ratio) < 1e-9), None)


def verdict(rows: Sequence[Row]) -> str:
    """The main comparison in one sentence.

    It takes the arm with the least real images that still has some (100% synthetic if there is no
    other), of the first design and without a shot limit where possible.
    """
    compared = [row for row in rows if row.delta is not None]
    if not compared:
        row = rows[0]
        return (
            f"{arm_label(row.ratio, row.shots)} reached a mean accuracy of "
            f"{_percent(row.weighted['accuracy'].mean)} on {row.n_test} test images; without "
            "runs of both real images alone and a mixture nothing can be said about the synthetic ones."
        )
    row = min(compared, key=lambda r: (r.shots is not None, rows[0].design != r.design, not r.ratio, r.ratio))
    assert row.delta is not None
    after = row.weighted["accuracy"].mean or 0.0
    before = after - row.delta / 100
    found = row.p is not None and row.p <= ALPHA
    meaning = "a significant difference" if found else "which this test set cannot tell from no change"
    return (
        f"{_change(row)} changed mean accuracy by {points(row.delta)} points "
        f"({_percent(before)} to {_percent(after)}, {_runs(row.runs)}, McNemar p {p_value(row.p)}), "
        f"{meaning}; {_resolution(row.n_test)}."
    )


def _change(row: Row) -> str:
    limit = "" if row.shots is None else f", at {row.shots} real images a class,"
    if row.design == "augment":
        return f"Adding {row.n_synthetic} synthetic images to {row.n_real} real ones{limit}"
    if row.design == "substitute":
        part = "all" if row.ratio == 0 else f"{round(100 * (1 - row.ratio))}%"
        return f"Replacing {part} of the real images with synthetic ones{limit}"
    return f"In the design {row.design}, {arm_label(row.ratio)} instead of real images alone{limit}"


def _resolution(n: int) -> str:
    least = smallest_detectable(n)
    if least.points is None:
        return f"with {n} test images no difference at all can be resolved"
    return f"with {n} test images, differences under {least.points:.1f} points cannot be resolved"


def limits(rows: Sequence[Row]) -> list[str]:
    """Sentences on what these runs cannot show."""
    lines = []
    for n in sorted({row.n_test for row in rows}):
        least = smallest_detectable(n)
        line = (
            f"{_resolution(n).capitalize()}: exact McNemar needs at least {least.pairs} images on which two "
        )
        line += f"classifiers differ, all one way (p = {2 * 0.5**least.pairs:.3f})."
        if least.top is not None:
            line += f" A classifier that gets {n} of {n} right can be told apart only from one with at most "
            line += f"{n - least.pairs} right (accuracy {least.top:.3f})."
        lines.append(line)
    if any(row.runs < 2 for row in rows):
        lines.append(
            "Arms with one run have no standard deviation: chance in training is not measured there."
        )
    lines.append(
        "More seeds narrow the chance in training, not the chance in which images the test set holds; the "
        "Wilson intervals count images, not images times seeds."
    )
    if any(row.delta_interval for row in rows):
        lines.append(
            "The bootstrap interval is for the mean over seeds, McNemar's p for one vote of the seeds; where "
            "only one of them finds a difference, take it as unresolved."
        )
    if sum(row.p is not None for row in rows) > 1:
        lines.append("The p values are not corrected for the number of arms compared.")
    return lines


def _percent(value: float | None) -> str:
    return UNDEFINED if value is None else f"{100 * value:.1f}%"


def _runs(count: int) -> str:
    return f"{count} run" + "s" * (count != 1)


def print_table(rows: Sequence[Row], reference: Reference | None, console: Console) -> None:
    """One table a design: weighted averages above macro ones, the student report beneath its arms."""
    for design in dict.fromkeys(row.design for row in rows):
        arms = [row for row in rows if row.design == design]
        table = Table(
            title=Text(f"Design: {design}"), caption=_caption(arms, reference), box=box.SIMPLE, pad_edge=False
        )
        table.padding = (0, 1, 0, 0)
        table.add_column("real/synthetic", no_wrap=True)
        for name in ("accuracy", "Δ points", "precision", "recall", "F1", "ROC-AUC"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in arms:
            table.add_row(*_cells(row))
            known = quoted(row, reference)
            if known:
                figures = [f"{known[metric]:.4f}" for metric in AVERAGED]
                name = f"report {MODELS.get(row.ratio, '')}".strip()
                table.add_row(name, f"{known['accuracy']:.4f}", "", *figures, style="dim")
            table.add_section()
        console.print(table)


def _cells(row: Row) -> list[Text]:
    low, high = row.interval
    delta = points(row.delta) if row.p is None else f"{points(row.delta)}\np {p_value(row.p)}"
    shots = "" if row.shots is None else f", {row.shots}-shot"
    return [
        Text(f"{arm_label(row.ratio)}\n{row.n_real}/{row.n_synthetic}{shots}"),
        Text(f"{spread(row.weighted['accuracy'])}\n[{low:.3f}, {high:.3f}]"),
        Text(delta),
        *(Text(f"{share(row.weighted[m].mean)}\n{share(row.macro[m].mean)}") for m in AVERAGED),
    ]


def _caption(rows: Sequence[Row], reference: Reference | None) -> Text:
    runs = sorted({row.runs for row in rows})
    lines = [
        f"accuracy: mean ± sd over {'/'.join(map(str, runs))} runs, [95% Wilson interval]; p: exact McNemar",
        "precision to ROC-AUC: weighted by support, macro beneath",
    ]
    if any(quoted(row, reference) for row in rows):
        lines.append("report model: the student report's figures, weighted, one run each")
    return Text("\n".join(lines))


def write_csv(records: Iterable[Record], path: Path) -> None:
    """One row a run with its scalar columns, ``macro_`` ones last; whole or not at all.

    Undefined is an empty cell. Lists and per-class values stay in ``records.jsonl``.
    """
    flat = [_flat(record) for record in records]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    columns.sort(key=lambda name: name.startswith("macro_"))
    with whole_file(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(flat)


def _flat(record: Record) -> dict[str, object]:
    plain = {name: value for name, value in record.items() if not isinstance(value, list | dict | tuple)}
    return plain | {f"macro_{name}": value for name, value in record["macro"].items()}
