"""What an experiment shows in the end: the tables, the figures of copies, the report page."""

import shlex
import sys

import numpy as np
from rich.console import Console

from evaluate import fidelity, report, table
from evaluate import records as lines
from evaluate.config import Evaluate
from evaluate.reference import FRUIT
from evaluate.sets import Sets, generator_notes
from evaluate.statistics import summarise
from orchard import cli, run
from orchard.images import ImageSet
from orchard.terminal import say

FIDELITY = "fidelity.json"


def publish(console: Console, config: Evaluate, sets: Sets) -> None:
    """Write metrics.csv and report.html from the records, and print what they say."""
    records = lines.read(config.output)
    reference = FRUIT if config.data == "fruit" else None
    copies = _copies(config, sets)
    notes = generator_notes(sets)
    context = report.Context(
        title=sets.train.name,
        command=shlex.join(["python", "-m", "evaluate", *sys.argv[1:]]),
        notes=sets.train.notes,
        generator=notes,
        copies=copies,
        configuration=cli.describe(config) | {"size": sets.sizes.size, "through": sets.sizes.through},
        versions=run.versions(),
        commit=run.git_commit(),
        sheet=_sheet(sets),
        provenance={key: sets.manifest[key] for key in ("arguments", "rows") if key in sets.manifest},
        reference=reference,
    )
    page = report.write(records, context, config.output / "report.html")
    table.write_csv(records, config.output / "metrics.csv")
    table.print_table(summarise(records), reference, console)
    for note in (*sets.train.notes, *notes):
        say(console, f"note: {note}")
    if copies:
        say(console, f"copies: {copies}")
    say(console, f"wrote {config.output / lines.RECORDS}, metrics.csv")
    say(console, f"report: {page.resolve()}")


def _copies(config: Evaluate, sets: Sets) -> str:
    """Write how many synthetic images are near copies of real ones; say it in a sentence."""
    if not len(sets.synthetic):
        return ""
    found = fidelity.measure(sets.synthetic, sets.train, sets.test)
    run.write_json(config.output / FIDELITY, found)
    return fidelity.sentence(found)


def _sheet(sets: Sets) -> dict[str, dict[str, list[np.ndarray]]]:
    """A few real and synthetic images a class, as the classifier sees them."""

    def some(images: ImageSet, name: str) -> list[np.ndarray]:
        photos = [photo for photo in images.photos if photo.label == name][: report.SHEET]
        return list(sets.sizes.pixels(photos))

    return {
        name: {"real": some(sets.train, name), "synthetic": some(sets.synthetic, name)}
        for name in sets.train.classes
    }
