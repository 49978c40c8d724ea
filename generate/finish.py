"""The end of a run: card and manifest, the upload, and the command that goes on from here."""

import shlex
from typing import Any

from rich.console import Console

from generate import card
from generate.config import Generate
from orchard import hub, run, shards
from orchard.terminal import say


def finish(console: Console, config: Generate, *, changed: bool) -> None:
    """Make the folder a complete set, upload it when asked to, and say what there is."""
    if not changed and (config.output / shards.MANIFEST).is_file():
        say(console, f"{config.output} has every row already; nothing written")
        manifest = shards.read_manifest(config.output)
    else:
        manifest = shards.manifest_of(config.output)
        card.write(config.output, manifest)
        shards.write_manifest(config.output, manifest)
        counts = ", ".join(f"{label} {n}" for label, n in manifest["rows"].items())
        say(console, f"wrote {config.output}: {counts}")
    say(console, _totals(config, manifest))
    if config.push_to_hub:
        _share(console, config, manifest)
    say(console, f"next: {_next(config, manifest)}")


def _totals(config: Generate, manifest: dict[str, Any]) -> str:
    """What the whole folder was asked for and holds, and how many images were given up on the way."""
    found = shards.existing(config.output)
    asked = {shard.origin.label: 0 for shard in found}
    for shard in found:
        asked[shard.origin.label] = max(asked[shard.origin.label], shard.origin.count)
    flagged = sum(map(shards.given_up, found))
    return f"asked {sum(asked.values())}, written {sum(manifest['rows'].values())}, flagged {flagged}"


def _share(console: Console, config: Generate, manifest: dict[str, Any]) -> None:
    """Upload card, shards and manifest as one commit."""
    names = [card.NAME, *(entry["name"] for entry in manifest["files"]), shards.MANIFEST]
    repo = hub.check(config.push_to_hub, "dataset")
    files = {name: config.output / name for name in names}
    address = hub.upload(repo, "dataset", files, private=config.private, message="Add synthetic images")
    say(console, f"uploaded to {address}")


def _next(config: Generate, manifest: dict[str, Any]) -> str:
    """The command that goes on from here: the classes still missing, else the experiment."""
    default = Generate()
    output = [] if config.output == default.output else ["--output", str(config.output)]
    missing = [name for name in manifest["classes"] if name not in manifest["rows"]]
    if missing and config.lora and config.balance is None:
        files = [f"{run.file_name(name)}.safetensors" for name in missing]
        return shlex.join(["python", "-m", "generate", "--lora", *files, *output])
    data = [] if config.data == default.data else ["--data", config.data]
    synthetic = ["--synthetic", str(config.output)] if output else []
    return shlex.join(["python", "-m", "evaluate", "--ratios", "all", *data, *synthetic])
