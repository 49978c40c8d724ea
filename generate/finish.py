"""The end of a run: contact sheets, card, then the manifest that makes the set complete; sharing."""

import shlex
from pathlib import Path
from typing import Any

from rich.console import Console

from generate import card, sheets
from generate.config import Generate
from generate.tally import of_folder
from orchard import hub, run, shards
from orchard.terminal import say


def finish(console: Console, config: Generate, folder: Path, *, changed: bool) -> None:
    """Say what the folder holds, after completing it if this run changed it; share it if asked to."""
    if changed:
        manifest = shards.manifest_of(folder)
        manifest["sheets"] = sheets.write(folder, manifest)
        card.write(folder, manifest)
        shards.write_manifest(folder, manifest)
        say(console, f"wrote {folder}: {_counts(manifest['rows'])}{_rejected(manifest)}")
    else:
        manifest = shards.read_manifest(folder)
        say(console, f"{folder} has every row already; nothing written")
    say(console, str(of_folder(folder)))
    if config.push_to_hub:
        _share(console, config, folder, manifest)
    say(console, f"next: {_next(config, manifest)}")


def _counts(rows: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in rows.items())


def _rejected(manifest: dict[str, Any]) -> str:
    found = [f"{label} {_counts(reasons)}" for label, reasons in manifest["rejected"].items()]
    return f"; rejected: {'; '.join(found)}" if found else "; rejected: none"


def _share(console: Console, config: Generate, folder: Path, manifest: dict[str, Any]) -> None:
    """Upload card, sheets, shards of both splits and manifest as one commit."""
    entries = [*manifest["files"], *manifest["rejected_files"]]
    names = [card.NAME, *manifest.get("sheets", ()), *(entry["name"] for entry in entries), shards.MANIFEST]
    repo = hub.check(config.push_to_hub, "dataset")
    files = {name: folder / name for name in names}
    address = hub.upload(repo, "dataset", files, private=config.private, message="Add synthetic images")
    say(console, f"uploaded to {address}")


def _next(config: Generate, manifest: dict[str, Any]) -> str:
    """The command that goes on from here: the classes still missing, else the experiment."""
    default = Generate()
    output = [] if str(config.output) == default.output else ["--output", str(config.output)]
    missing = [name for name in manifest["classes"] if name not in manifest["rows"]]
    if missing and config.lora and config.balance is None:
        files = [f"{run.file_name(name)}.safetensors" for name in missing]
        return shlex.join(["python", "-m", "generate", "--lora", *files, *output])
    data = [] if config.data == default.data else ["--data", config.data]
    synthetic = ["--synthetic", str(config.output)] if output else []
    return shlex.join(["python", "-m", "evaluate", "--ratios", "all", *data, *synthetic])
