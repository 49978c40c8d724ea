"""How an adapter is used: in generate, in diffusers, in WebUI and ComfyUI."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from orchard import bases, cards, lycoris, prompts
from orchard.provenance import Provenance

KOHYA = "kohya"
"""Folder beside the adapters for the files that WebUI and ComfyUI read."""


def generate_command(files: Sequence[Path]) -> str:
    """The command that samples a set from the adapters; bare names where generate finds them by those."""
    names = [path.name if path.parent == Path("adapters") else str(path) for path in files]
    return shlex.join(["python", "-m", "generate", "--lora", *names])


def markdown(adapter: Path, origin: Provenance) -> str:
    """The section of a model card on the use of ``adapter``."""
    prompt = prompts.fill(origin.prompt, origin.classes[0])
    return "\n".join(
        [
            "## Use",
            "",
            "As a labelled dataset:",
            "",
            f"    python -m generate --lora {shlex.quote(adapter.name)}",
            "",
            *_diffusers(adapter, origin, prompt),
            "",
            *_interfaces(adapter, origin, prompt),
        ]
    )


def _diffusers(adapter: Path, origin: Provenance, prompt: str) -> list[str]:
    if origin.method in lycoris.METHODS:
        return [f"The file has the names of LyCORIS; diffusers does not load {origin.method}."]
    base = bases.HUB.get(origin.base, origin.base)
    return [
        "In diffusers:",
        "",
        "```python",
        "from diffusers import DiffusionPipeline",
        "",
        f"pipe = DiffusionPipeline.from_pretrained({_string(base)})",
        f"pipe.load_lora_weights({_string(adapter.name)})",
        f"pipe({_string(prompt)}).images[0]",
        "```",
    ]


def _string(text: str) -> str:
    """A string of Python, on one line, whatever stands in it."""
    return json.dumps(text, ensure_ascii=False)


def _interfaces(adapter: Path, origin: Provenance, prompt: str) -> list[str]:
    source = _file_for_interfaces(adapter, origin)
    return [
        f"In WebUI: copy {source} to `models/Lora/`, choose a checkpoint of the base, and write "
        f"{cards.code(f'{prompt} <lora:{adapter.stem}:1>')}.",
        "",
        "In ComfyUI: copy the same file to `models/loras/` and put a *Load LoRA* node with strength 1 "
        "behind the checkpoint loader.",
        "",
    ]


def _file_for_interfaces(adapter: Path, origin: Provenance) -> str:
    """What WebUI and ComfyUI read: the adapter itself where its names are theirs, else its twin."""
    if origin.method in lycoris.METHODS:
        return f"`{adapter.name}`"
    twin = adapter.parent / KOHYA / adapter.name
    name = f"`{KOHYA}/{adapter.name}`"
    return name if twin.is_file() else f"{name} (written when trained with `--export kohya`)"
