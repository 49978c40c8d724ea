"""What an experiment shows in the end: numbers as files, the report page, the table in the terminal."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console

from evaluate import export, fidelity, gap, joined, pictures, report, table
from evaluate import records as lines
from evaluate.analysis import analyse, as_json
from evaluate.answers import Record, tested
from evaluate.config import Evaluate
from evaluate.distances import Gaps
from evaluate.features import Embed
from evaluate.mistakes import worst
from evaluate.reference import FRUIT
from evaluate.sets import Sets, generator_notes
from evaluate.strata import describe
from orchard import cli, run
from orchard.images import Photo
from orchard.terminal import say

FIDELITY, PAGE = "fidelity.json", "report.html"


def publish(console: Console, config: Evaluate, sets: Sets) -> None:
    """Write the numbers and the page from the records, and print what they say.

    Raises:
        UserError: no record, or records that do not belong together.
    """
    records = joined.read(config.output, config.also)
    report.require_records(records)
    photos = _tested(records, sets)
    analysis = analyse(records, config.margin, describe(photos))
    networks = gap.networks(config, run.processes().device)
    context = _context(config, sets, records, photos, networks)
    export.write(records, analysis, config.output)
    page = report.write(records, analysis, context, config.output / PAGE)
    table.print_table(analysis.rows, context.reference, console)
    say(console, analysis.verdict)
    for note in (*context.notes, *context.generator):
        say(console, f"note: {note}")
    if context.copies:
        say(console, f"copies: {context.copies}")
    written = (lines.RECORDS, export.RUNS, export.ARMS, export.ANALYSIS)
    say(console, f"wrote {config.output}/: {', '.join(written)}")
    say(console, f"report: {page.resolve()}")


def _tested(records: Sequence[Record], sets: Sets) -> list[Photo]:
    """The photos that were scored; in cross-validation these are training photos too."""
    files = set(tested(records))
    return [photo for photo in (*sets.test.photos, *sets.train.photos) if photo.path in files]


def _context(
    config: Evaluate,
    sets: Sets,
    records: Sequence[Record],
    photos: Sequence[Photo],
    networks: Mapping[str, Embed],
) -> report.Context:
    copies, gaps = _fidelity(config, sets, networks)
    near, embed = next(iter(networks.items()), ("plain pixels", pictures.as_they_are))
    files = [mistake["file"] for mistake in worst(records)]
    pools = {"real": sets.train, "synthetic": sets.synthetic}
    rejected = pictures.rejected(config.synthetic, sets.train.classes) if len(sets.synthetic) else []
    return report.Context(
        title=sets.train.name,
        command=shlex.join(["python", "-m", "evaluate", *sys.argv[1:]]),
        notes=sets.train.notes,
        generator=generator_notes(sets),
        copies=copies,
        gaps=gaps,
        configuration=cli.describe(config) | {"size": sets.sizes.size, "through": sets.sizes.through},
        versions=run.versions(),
        commit=run.git_commit(),
        sheets=pictures.sheets(sets.train, sets.synthetic, rejected),
        pictures=pictures.beside(files, photos, pools, embed, sets.sizes.pixels),
        near=near,
        hashes=_hashes(config),
        provenance={key: sets.manifest[key] for key in ("arguments", "rows") if key in sets.manifest},
        reference=FRUIT if config.data == "fruit" else None,
    )


def _fidelity(config: Evaluate, sets: Sets, networks: Mapping[str, Embed]) -> tuple[str, Gaps]:
    """Write how near synthetic images come to real ones; copies in a sentence, and the domain gap."""
    if not len(sets.synthetic):
        return "", {}
    found = fidelity.measure(sets.synthetic, sets.train, sets.test)
    gaps = gap.gaps(sets, networks)
    run.write_json(config.output / FIDELITY, found | {"gap": as_json(gaps)})
    return fidelity.sentence(found), gaps


def _hashes(config: Evaluate) -> dict[str, str]:
    """SHA-256 of the records, and of the image sets as the experiment noted them."""
    identity = json.loads((config.output / lines.EXPERIMENT).read_text(encoding="utf-8"))
    sets = {name: identity[name] for name in ("train", "test", "synthetic") if identity.get(name)}
    folders = (config.output, *config.also)
    return {str(folder / lines.RECORDS): run.file_hash(folder / lines.RECORDS) for folder in folders} | sets
