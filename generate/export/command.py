"""`python -m generate.export`: read shard after shard, write all of it or nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path

from generate.export import coco, imagefolder, table, webdataset
from generate.export.config import Export
from generate.export.items import Item, Writer, item
from generate.outputs import dataset_card
from orchard import shards
from orchard.cli.terminal import Terminal, bar, say
from orchard.errors import UserError
from orchard.files import atomic, storage

WRITERS: dict[str, Writer] = {
    "imagefolder": imagefolder.write,
    "webdataset": webdataset.write,
    "coco": coco.write,
    "csv": table.write,
}


def export(config: Export) -> None:
    """Write the set into the output folder.

    Raises:
        UserError: whatever the user can mend; nothing is written then.
    """
    folder, output = storage.location(config.synthetic), config.output.expanduser()
    manifest = shards.read_manifest(folder)
    atomic.require_distinct_files(manifest["classes"])
    _require_empty(output)
    console = Terminal()
    counts = ", ".join(f"{label} {number}" for label, number in manifest["rows"].items())
    say(console, f"export    {config.synthetic} as {config.format} into {output}: {counts}")
    if config.dry_run:
        return
    atomic.writable(output.parent)
    with (
        atomic.whole_folder(output) as aside,
        bar("writing", sum(manifest["rows"].values()), unit="images") as advance,
    ):
        said = WRITERS[config.format](aside, manifest["classes"], _items(folder, manifest, advance))
        (aside / dataset_card.NAME).write_text(dataset_card.exported(folder, manifest), encoding="utf-8")
    say(console, f"wrote {output}; {said}")


def _items(folder: Path, manifest: shards.Manifest, advance: Callable[[int], None]) -> Iterator[Item]:
    for row in shards.rows(folder, manifest):
        yield item(row, manifest["classes"])
        advance(1)


def _require_empty(output: Path) -> None:
    if output.resolve() == Path.cwd():
        raise UserError(f"--output {output}: is the folder that the command runs in; name one to be made")
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"--output {output}: is there already; give a folder that is new or empty")
