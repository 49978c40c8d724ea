"""What the page says beyond the records: images, distances between sets, commands and hashes."""

from collections.abc import Mapping, Sequence
from typing import Literal

from evaluate.analysis.mistakes import worst
from evaluate.analysis.predictions import tested
from evaluate.analysis.student_report import FRUIT
from evaluate.config import Evaluate
from evaluate.experiment.image_sets import Sets, generator_notes
from evaluate.experiment.shown_images import ShownImages
from evaluate.records import records as lines
from evaluate.records.records import Record
from evaluate.report import pictures
from evaluate.report.fidelity import Distances
from evaluate.report.html_page import Context
from evaluate.report.pictures import ReadPixels
from orchard import audits, shards, software
from orchard.classifiers.embeddings import Embed
from orchard.cli import cli
from orchard.files import atomic
from orchard.images.images import Photo

QUOTED: tuple[Literal["arguments", "rows", "rejected"], ...] = ("arguments", "rows", "rejected")
"""What the page quotes of the synthetic set's manifest."""
COMPARED = ("train", "test", "synthetic", "untuned")
"""Sets whose hashes an experiment notes."""


def tested_photos(records: Sequence[Record], sets: Sets) -> list[Photo]:
    """The photos that were scored; in cross-validation these are training photos too."""
    files = set(tested(records))
    return [photo for photo in (*sets.test.photos, *sets.train.photos) if photo.path in files]


def gather(
    config: Evaluate,
    sets: Sets,
    shown: ShownImages,
    distances: Distances,
    records: Sequence[Record],
    tested: Sequence[Photo],
    networks: Mapping[str, Embed],
    read: ReadPixels,
) -> Context:
    """The context of the page; ``distances`` are those of ``shown``."""
    near, embed = next(iter(networks.items()), ("plain pixels", pictures.as_they_are))
    files = [mistake["file"] for mistake in worst(records)]
    pools = {"real": shown.real, "synthetic": shown.synthetic}
    manifest = shards.read_manifest(shown.folder) if shown.folder else None
    away = pictures.rejected(shown.folder, manifest) if shown.folder and manifest else []
    made: dict[str, object] = {name: manifest[name] for name in QUOTED if manifest[name]} if manifest else {}
    return Context(
        title=sets.train.name,
        commands=_commands(config),
        notes=sets.train.notes,
        generator=() if config.own_photos else generator_notes(config, sets),
        shown=shown.arm,
        rejections=shards.rejections(manifest) if manifest else {},
        copies=distances.copies,
        audit=audits.quoted(shown.folder, audits.of_set(manifest)) if shown.folder and manifest else (),
        gaps=distances.gaps,
        configuration=cli.describe(config) | {"size": sets.sizes.size, "through": sets.sizes.through},
        versions=software.versions(),
        commits=_commits(records),
        sheets=pictures.sheets(shown.real, shown.synthetic, away, manifest["rejected"] if manifest else {}),
        pictures=pictures.beside(files, tested, pools, embed, read),
        near=near,
        hashes=_hashes(config),
        provenance=made,
        reference=FRUIT if config.data == "fruit" else None,
    )


def command(config: Evaluate) -> str:
    """The command of this experiment, whether it was typed or called from Python."""
    return cli.command("python -m evaluate", config)


def _commands(config: Evaluate) -> list[str]:
    """Those that trained the classifiers, then this one that wrote the page."""
    made = [one for folder in (config.output, *config.also) for one in lines.noted(folder)["commands"]]
    return list(dict.fromkeys([*made, command(config)]))


def _commits(records: Sequence[Record]) -> list[str]:
    """Those of the checkouts that trained the classifiers, in the order of the records."""
    return list(dict.fromkeys(record["commit"] for record in records if record["commit"]))


def _hashes(config: Evaluate) -> dict[str, str]:
    """SHA-256 of the records, and of the image sets as the experiment noted them."""
    folders = (config.output, *config.also)
    found = {str(folder / lines.RECORDS): atomic.file_hash(folder / lines.RECORDS) for folder in folders}
    noted = lines.noted(config.output)
    found |= {name: noted[name] for name in COMPARED if noted.get(name)}
    return found | {f"external {name}": digest for name, digest in noted["external"].items()}
