"""What an experiment shows in the end: numbers as files, the report page, the table in the terminal."""

from collections.abc import Mapping

from rich.console import Console

from evaluate import context, elsewhere, export, joined, report, table
from evaluate import records as lines
from evaluate.analysis import analyse
from evaluate.config import Evaluate
from evaluate.exhibit import Exhibit
from evaluate.features import Embed
from evaluate.pictures import Read
from evaluate.sets import Sets, generator_notes
from evaluate.strata import describe
from orchard.terminal import say

PAGE = "report.html"


def publish(
    console: Console,
    config: Evaluate,
    sets: Sets,
    shown: Exhibit,
    networks: Mapping[str, Embed],
    read: Read,
) -> None:
    """Write the numbers and the page from the records, and print what they say.

    ``networks`` measure how far the images of ``shown`` lie apart; ``read`` brings photos to their pixels.

    Raises:
        UserError: no record, or records that do not belong together.
    """
    records = joined.read(config.output, config.also)
    report.require_records(records)
    tested = context.tested_photos(records, sets)
    analysis = analyse(records, config.margin, describe(tested))
    around = context.gather(config, sets, shown, records, tested, networks, read)
    export.write(records, analysis, config.output)
    page = report.write(records, analysis, around, config.output / PAGE)
    table.print_table(analysis.rows, around.reference, console)
    for line in filter(None, (analysis.verdict, analysis.basis, analysis.caveat)):
        say(console, line)
    for found in analysis.elsewhere:
        say(console, elsewhere.line(found))
    for note in (*around.notes, *generator_notes(config, sets)):
        say(console, f"note: {note}")
    if around.copies:
        say(console, f"copies: {around.copies}")
    written = (lines.RECORDS, export.RUNS, export.ARMS, export.ANALYSIS)
    say(console, f"wrote {config.output}/: {', '.join(written)}")
    say(console, f"report: {page.resolve()}")
