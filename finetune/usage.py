"""How an adapter is used: in generate, in diffusers, in WebUI and ComfyUI."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from orchard import bases, prompts
from orchard.provenance import Provenance

KOHYA = "kohya"
"""Folder beside the adapters for the files that WebUI and ComfyUI read."""


def generate_command(files: Sequence[Path]) -> str:
    """The command that samples a set from the adapters; bare names where generate finds them by those."""
    names = [path.name if path.parent == Path("adapters") else str(path) for path in files]
    return shlex.join(["python", "-m", "generate", "--lora", *names])


def markdown(adapter: Path, origin: Provenance) -> str:
    """The section of a model card on the use of ``adapter``."""
    base = bases.HUB.get(origin.base, origin.base)
    prompt = prompts.fill(origin.prompt, origin.classes[0])
    return "\n".join(
        [
            "## Use",
            "",
            "As a labelled dataset:",
            "",
            f"    python -m generate --lora {shlex.quote(adapter.name)}",
            "",
            "In diffusers:",
            "",
            "```python",
            "from diffusers import DiffusionPipeline",
            "",
            f'pipe = DiffusionPipeline.from_pretrained("{base}")',
            f'pipe.load_lora_weights("{adapter.name}")',
            f'pipe("{prompt}").images[0]',
            "```",
            "",
            *_interfaces(adapter, prompt),
        ]
    )


def _interfaces(adapter: Path, prompt: str) -> list[str]:
    exported = adapter.parent / KOHYA / adapter.name
    name = f"`{KOHYA}/{adapter.name}`"
    source = name if exported.is_file() else f"{name} (written when trained with `--export kohya`)"
    return [
        f"In WebUI: copy {source} to `models/Lora/`, choose a checkpoint of the base, and write "
        f"`{prompt} <lora:{adapter.stem}:1>`.",
        "",
        "In ComfyUI: copy the same file to `models/loras/` and put a *Load LoRA* node with strength 1 "
        "behind the checkpoint loader.",
        "",
    ]
