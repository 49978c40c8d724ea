"""The end of a run: contact sheets, card, then the manifest that makes the set complete; sharing."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from generate.config import Generate
from generate.outputs import contact_sheets, credentials, croissant, dataset_card
from generate.outputs.folder import of_folder
from generate.planning.jobs import Diffusion, Job
from generate.sampling.loras import labels_of
from orchard import cards, hub, shards
from orchard.adapters import adapter
from orchard.cli.terminal import say
from orchard.errors import UserError
from orchard.files import atomic

OURS = re.compile(
    rf"{re.escape(dataset_card.NAME)}|{re.escape(shards.MANIFEST)}|{re.escape(croissant.NAME)}"
    r"|data/.+\.parquet|ledgers/.+\.txt|sheets/.+\.png"
)
"""What a set may have on the Hub."""


def require_shareable(config: Generate, folder: Path) -> None:
    """Raise `UserError` where ``--push_to_hub`` would be refused, or would publish a place of this machine.

    Sets of older versions name the folder of their base.
    """
    if not config.push_to_hub:
        return
    hub.check(config.push_to_hub, "dataset")
    for shard in (*shards.existing(folder), *shards.existing(folder, shards.REJECTED)):
        rows = shards.columns(shard.path, "base")["base"].unique().to_pylist()
        for base in filter(None, (shard.header.arguments.get("base"), *rows)):
            if Path(base).name != base and not cards.is_hub_id(base):
                raise UserError(
                    f"--push_to_hub {config.push_to_hub}: {shard.path} is of an older version and would "
                    f"publish where its base lies, {base}; sample the set again into another --output"
                )


def finish(
    console: Console, config: Generate, folder: Path, planned: Sequence[Job], *, changed: bool
) -> None:
    """Say what the folder holds, after completing it if this run changed it; share it if asked to."""
    if changed:
        for job in planned:
            shards.lower_count(folder, job.label, job.header.count)
        manifest = shards.manifest_of(folder)
        manifest["sheets"] = contact_sheets.write(folder, manifest, credentials.signer(config.sign))
        dataset_card.write(folder, manifest)
        croissant.write(folder, manifest)
        shards.write_manifest(folder, manifest)
        say(console, f"wrote {folder}: {_counts(manifest['rows'])}{_rejected(manifest)}")
    else:
        manifest = shards.read_manifest(folder)
        say(console, f"{folder} has every row already; nothing written")
    say(console, str(of_folder(folder)))
    if config.push_to_hub:
        _share(console, config, folder, manifest)
    say(console, f"next: {next_command(config, manifest, planned)}")


def _counts(rows: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in rows.items())


def _rejected(manifest: shards.Manifest) -> str:
    found = [f"{label} {_counts(reasons)}" for label, reasons in manifest["rejected"].items()]
    return f"; rejected: {'; '.join(found)}" if found else "; rejected: none"


def _share(console: Console, config: Generate, folder: Path, manifest: shards.Manifest) -> None:
    """Make the repository what the folder is; rejected images go there only where that was asked for."""
    away = config.push_rejected
    entries = [*manifest["files"], *(manifest["rejected_files"] if away else ())]
    pictures = [
        name for name in manifest.get("sheets", ()) if away or not contact_sheets.is_of_rejected(name)
    ]
    described = [croissant.NAME] if (folder / croissant.NAME).is_file() else []  # older sets have none
    data = [*manifest["ledgers"], *(entry["name"] for entry in entries)]
    names = [*pictures, *data, *described, shards.MANIFEST]
    text = dataset_card.text(folder, manifest, rejected=away or not manifest["rejected_files"]).encode()
    push = hub.Push(
        repo=hub.check(config.push_to_hub, "dataset"),
        kind="dataset",
        folder=folder,
        files={dataset_card.NAME: text, **{name: folder / name for name in names}},
        ours=OURS,
    )
    for line in hub.upload(push, private=config.private, message="Add synthetic images"):
        say(console, line)


def next_command(config: Generate, manifest: shards.Manifest, planned: Sequence[Job]) -> str:
    """The command that goes on from here: the classes still missing, else the experiment."""
    default = Generate()
    output = [] if str(config.output) == default.output else ["--output", str(config.output)]
    missing = [name for name in manifest["classes"] if name not in manifest["rows"]]
    real = config.data if config.data != default.data else _trained_on(planned)
    data = ["--data", real] if real not in ("", default.data) else []
    if missing and config.lora and config.balance is None:
        adapters = _adapters_of(config, planned, missing)
        if not adapters:
            options = _tuning_of(_diffusion(planned)[0])
            return shlex.join(["python", "-m", "finetune.train_lora", "--classes", *missing, *options, *data])
        count = ["--count", str(config.count)] if config.count else []
        return shlex.join(["python", "-m", "generate", *adapters, *count, *output])
    synthetic = ["--synthetic", str(config.output)] if output else []
    return shlex.join(["python", "-m", "evaluate", "--ratios", "all", *data, *synthetic])


def _adapters_of(config: Generate, planned: Sequence[Job], labels: Sequence[str]) -> list[str]:
    """Options that sample further classes: from the run's own adapters, or from others beside them."""
    blends = [source.blend for source in _diffusion(planned)]
    known = {name for blend in blends for name in labels_of(blend)}
    if own := [name for name in labels if name in known]:
        return ["--lora", *config.lora, *(["--fuse"] if config.fuse else []), "--classes", *own]
    given = {one.adapter.path for blend in blends for one in blend.parts}
    given |= {blend.base.folder for blend in blends if blend.base}
    folders = sorted({path.parent for path in given})
    paths = [adapter.written(folder, atomic.file_name(name)) for name in labels for folder in folders]
    there = [path for path in paths if path.exists()]
    names = [path.name if path.parent == Path("adapters") else str(path) for path in there]
    return ["--lora", *names] if names else []


def _tuning_of(source: Diffusion) -> list[str]:
    """Options that train further classes in the way of those that are sampled."""
    origin = next((one for one in source.blend.provenances if one), None)
    name, method = (origin.base, origin.method) if origin else (source.base.name, "lora")
    base = ["--base", name] if name != "mini" else []
    return [*base, *(["--method", method] if method != "lora" else [])]


def _diffusion(planned: Sequence[Job]) -> list[Diffusion]:
    return [job.source for job in planned if isinstance(job.source, Diffusion)]


def _trained_on(planned: Sequence[Job]) -> str:
    """The real set that all of it was trained on, if it can be had from here; else nothing."""
    names = {name for job in planned for name in job.source.data}
    name = names.pop() if len(names) == 1 else ""
    there = name == "demo" or cards.is_hub_id(name) or (name and Path(name).expanduser().is_dir())
    return name if there else ""
