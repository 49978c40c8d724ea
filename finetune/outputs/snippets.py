"""How an adapter is used: in generate, in diffusers, in WebUI and ComfyUI."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from finetune.models.lora import KOHYA, kohya_copy
from orchard import cards, prompt_template
from orchard.adapters import embeddings, lycoris
from orchard.adapters.provenance import FULL, INVERSION, Provenance
from orchard.bases import bases
from orchard.bases.families import FAMILIES
from orchard.files.atomic import file_name


def interfaces(method: str, family: str) -> tuple[str, ...]:
    """The tools that apply an adapter under kohya's names as it was trained.

    By their sources: WebUI takes DoRA's norms over the columns, ComfyUI divides them by those of the base's
    rows alone; and of SD 3 WebUI and kohya's own scripts know the names of the original's layers only.
    """
    if method in ("dora", FULL):
        return ()
    return ("ComfyUI",) if family == "sd3" else ("WebUI", "ComfyUI")


def generate_command(files: Sequence[Path]) -> str:
    """The command that samples a set from the adapters; bare names where generate finds them by those."""
    names = [path.name if path.parent == Path("adapters") else str(path) for path in files]
    return shlex.join(["python", "-m", "generate", "--lora", *names])


def markdown(adapter: Path, provenance: Provenance, repo: str = "") -> str:
    """The section of a model card on the use of ``adapter``, beside it or in ``repo`` on the Hub."""
    prompt = prompt_template.fill(provenance.prompt, provenance.word(provenance.classes[0]))
    where = "" if repo else ", in the folder of this file"
    name = f"{repo}:{adapter.name}" if repo else adapter.name
    return "\n".join(
        [
            "## Use",
            "",
            f"As a labelled dataset{where}:",
            "",
            f"    python -m generate --lora {shlex.quote(name)}",
            "",
            *_diffusers(adapter, provenance, prompt, repo),
            "",
            *_interfaces(adapter, provenance, prompt),
        ]
    )


def _diffusers(adapter: Path, provenance: Provenance, prompt: str, repo: str) -> list[str]:
    if provenance.method in lycoris.METHODS:
        return [f"The file has the names of LyCORIS; diffusers does not load {provenance.method}."]
    name = _string(adapter.name)
    weights = f"{_string(repo)}, weight_name={name}" if repo else name
    return [
        "In diffusers:" if repo else "In diffusers, in the same folder:",
        "",
        "```python",
        *_loaded(adapter, provenance, weights),
        f"pipe({_string(prompt)}).images[0]",
        "```",
    ]


def _loaded(adapter: Path, provenance: Provenance, weights: str) -> list[str]:
    """The lines that load the base with what was learned, or what was made of it."""
    if provenance.method == FULL:
        folder = _string(adapter.name)
        return [
            "from diffusers import DiffusionPipeline",
            "",
            f"pipe = DiffusionPipeline.from_pretrained({folder})",
        ]
    lines = _pipeline(provenance)
    if provenance.method != INVERSION:
        lines.append(f"pipe.load_lora_weights({weights})")
    for label, one in provenance.embeddings.items():
        path = adapter.name if not one["sha256"] else f"{embeddings.FOLDER}/{file_name(label)}.safetensors"
        lines += _word(path, one["word"], provenance.family)
    return lines


def _word(path: str, word: str, family: str) -> list[str]:
    """The lines that load a word; where there are two text encoders, into each its own vectors."""
    if family == "sd":
        return [f"pipe.load_textual_inversion({_string(path)})"]
    loads = [
        f"pipe.load_textual_inversion(vectors[{_string(key)}], token={_string(word)}, "
        f"text_encoder=pipe.{name}, tokenizer=pipe.{name.replace('text_encoder', 'tokenizer')})"
        for name, key in embeddings.KEYS.items()
    ]
    return ["from safetensors.torch import load_file", f"vectors = load_file({_string(path)})", *loads]


def _pipeline(provenance: Provenance) -> list[str]:
    """The lines that load the base; the embedded one lies in this package, and has no safety checker."""
    if provenance.base == "mini":
        head = ["from diffusers import DiffusionPipeline", "from orchard.bases.bases import EMBEDDED"]
        return [*head, "", "pipe = DiffusionPipeline.from_pretrained(EMBEDDED, safety_checker=None)"]
    single = provenance.base.endswith(".safetensors")
    kind = FAMILIES[provenance.family].pipeline if single else "DiffusionPipeline"
    how = "from_single_file" if single else "from_pretrained"
    name = bases.public_name(provenance.base, provenance.base_digest)
    base = bases.HUB.get(name, name)
    there = "" if name == provenance.base else "  # where this base lies on your machine"
    return [f"from diffusers import {kind}", "", f"pipe = {kind}.{how}({_string(base)}){there}"]


def _string(text: str) -> str:
    """A string of Python, on one line, whatever stands in it."""
    return json.dumps(text, ensure_ascii=False)


def _interfaces(adapter: Path, provenance: Provenance, prompt: str) -> list[str]:
    if provenance.method == FULL:
        return []
    if provenance.method == INVERSION:
        said = prompt.replace(provenance.word(provenance.classes[0]), adapter.stem)
        return [
            f"In WebUI and ComfyUI: copy `{adapter.name}` to `embeddings/`, and write {cards.code(said)}; in "
            f"ComfyUI `embedding:{adapter.stem}`.",
            "",
        ]
    source = _file_for_interfaces(adapter, provenance)
    how = {
        "WebUI": f"copy {source} to `models/Lora/`, choose a checkpoint of the base, and write "
        f"{cards.code(f'{prompt} <lora:{adapter.stem}:1>')}.",
        "ComfyUI": f"copy {source} to `models/loras/` and put a *Load LoRA* node with strength 1 behind the "
        "checkpoint loader.",
    }
    tools = interfaces(provenance.method, provenance.family)
    lines = [line for tool in tools for line in (f"In {tool}: {how[tool]}", "")]
    if others := [tool for tool in how if tool not in tools]:
        lines += [f"{' and '.join(others)} would apply it differently from how it was trained.", ""]
    return lines


def _file_for_interfaces(adapter: Path, provenance: Provenance) -> str:
    """What WebUI and ComfyUI read: the adapter itself where its names are theirs, else its copy."""
    if provenance.method in lycoris.METHODS:
        return f"`{adapter.name}`"
    name = f"`{KOHYA}/{adapter.name}`"
    return name if kohya_copy(adapter).is_file() else f"{name} (written when trained with `--export kohya`)"
