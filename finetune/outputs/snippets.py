"""How an adapter is used: in generate, in diffusers, in WebUI and ComfyUI."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from finetune.models.lora import exported
from orchard import cards, prompt_template
from orchard.adapters import embeddings, lycoris, merged
from orchard.adapters.provenance import FULL, INVERSION, Provenance
from orchard.bases import bases
from orchard.bases.families import FAMILIES
from orchard.files.atomic import file_name

REPAINT = ("--repaint", "object")
"""What generate has to be told for a base that inpaints."""
PHOTO = ', image=load_image("photo.jpg"), mask_image=load_image("mask.png")'
"""What its pipeline has to be given: white in the mask is what is drawn."""
SD3_IN_WEBUI = "WebUI does not load it: its loader stops at the alphas of a LoRA for SD 3."


def interfaces(method: str, family: str) -> tuple[str, ...]:
    """The tools that apply an adapter under kohya's names as it was trained.

    By their sources: WebUI takes DoRA's norms over the columns, ComfyUI divides them by those of the base's
    rows alone. For SD 3 WebUI splits every name into three, which fails at alphas (``networks.py``), and
    kohya's own scripts know the original's layers alone (``lora_sd3.py``).
    """
    if method in ("dora", FULL):
        return ()
    return ("ComfyUI",) if family == "sd3" else ("WebUI", "ComfyUI")


def generate_command(files: Sequence[Path], *, inpaints: bool) -> str:
    """The command that samples a set from the adapters; bare names where generate finds them by those."""
    names = [path.name if path.parent == Path("adapters") else str(path) for path in files]
    return shlex.join(["python", "-m", "generate", "--lora", *names, *(REPAINT if inpaints else ())])


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
            f"    {generate_command([Path(name)], inpaints=provenance.inpaints)}",
            "",
            *_diffusers(adapter, provenance, prompt, repo),
            "",
            *_interfaces(adapter, provenance, prompt),
        ]
    )


def _diffusers(adapter: Path, provenance: Provenance, prompt: str, repo: str) -> list[str]:
    file = adapter.name
    if provenance.method in lycoris.METHODS:
        if provenance.family == "sd3" or not exported(adapter, "merged").is_file():
            return [f"The file has the names of LyCORIS; diffusers does not load {provenance.method}."]
        file = f"merged/{file}"
    name = _string(file)
    weights = f"{_string(repo)}, weight_name={name}" if repo else name
    return [
        "In diffusers:" if repo else "In diffusers, in the same folder:",
        "",
        "```python",
        *_loaded(adapter, provenance, weights),
        f"pipe({_string(prompt)}{_further(provenance)}).images[0]",
        "```",
    ]


def _further(provenance: Provenance) -> str:
    """What a pipeline is called with besides the prompt; diffusers counts one layer less than kohya."""
    skipped = provenance.options.get("clip_skip", 0)
    layer = f", clip_skip={skipped - 1}" if skipped else ""
    return f"{PHOTO if provenance.inpaints else ''}{layer}"


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
    layout = FAMILIES[provenance.family]
    kind = "DiffusionPipeline"
    if single:
        kind = layout.inpainting if provenance.inpaints else layout.pipeline
    how = "from_single_file" if single else "from_pretrained"
    name = bases.public_name(provenance.base, provenance.base_digest)
    base = bases.HUB.get(name, name)
    there = "" if name == provenance.base else "  # where this base lies on your machine"
    images = ["from diffusers.utils import load_image"] if provenance.inpaints else []
    return [f"from diffusers import {kind}", *images, "", f"pipe = {kind}.{how}({_string(base)}){there}"]


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
    method, source, note = _file_for_interfaces(adapter, provenance)
    how = {
        "WebUI": f"copy {source} to `models/Lora/`, choose a checkpoint of the base, and write "
        f"{cards.code(f'{prompt} <lora:{adapter.stem}:1>')}.",
        "ComfyUI": f"copy {source} to `models/loras/` and put a *Load LoRA* node with strength 1 behind the "
        "checkpoint loader.",
    }
    tools = interfaces(method, provenance.family)
    lines = [line for tool in tools for line in (f"In {tool}: {how[tool]}", "")]
    if tools and "WebUI" not in tools:
        lines += [SD3_IN_WEBUI, ""]
    return [*lines, *((note, "") if note else ())]


def _file_for_interfaces(adapter: Path, provenance: Provenance) -> tuple[str, str, str]:
    """What WebUI and ComfyUI read: its method, its name, and what is to be said of it."""
    method, plain = provenance.method, exported(adapter, "merged")
    if plain.is_file():
        note = (
            f"`merged/{adapter.name}` is the plain LoRA nearest to this {method}: {merged.described(plain)}."
        )
        return "lora", f"`merged/{adapter.name}`", note
    if method in lycoris.METHODS:
        return method, f"`{adapter.name}`", ""
    if method == "dora":
        note = (
            "WebUI and ComfyUI would apply it differently from how it was trained; `--export merged` writes "
            "the plain LoRA nearest to it, for them."
        )
        return method, "", note
    name = f"`kohya/{adapter.name}`"
    there = exported(adapter, "kohya").is_file()
    return method, name if there else f"{name} (written when trained with `--export kohya`)", ""
