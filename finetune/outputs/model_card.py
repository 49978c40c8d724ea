"""The model card of a folder of adapters: what they are, what they have seen, how to use them."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from finetune.outputs import snippets
from finetune.outputs.monitor import sheet_paths
from orchard import audits, cards, prompt_template
from orchard.adapters import adapter, privacy, provenance
from orchard.adapters.provenance import FULL, INVERSION, Provenance
from orchard.bases import bases
from orchard.bases.bases import Base
from orchard.errors import UserError
from orchard.files.atomic import file_hash, whole_file
from orchard.images.images import sha256

NAME = "README.md"
TITLES = {FULL: "Whole models", INVERSION: "Learned words"}
TAGS = {FULL: "dreambooth", INVERSION: "textual_inversion"}
"""Of what is no adapter."""
COLUMNS = (
    *("file", "classes", "real images", "ledger", "method", "trained layers"),
    *("rank", "alpha", "steps", "loss, first to last tenth"),
)


def adapters(folder: Path, base: Base) -> list[tuple[Path, Provenance]]:
    """The adapters in the folder that were trained on this base, by this run or earlier ones."""
    found = []
    pipelines = (file.parent for file in folder.glob(f"*/{provenance.NAME}"))
    for path in sorted([*folder.glob("*.safetensors"), *pipelines]):
        with suppress(UserError):  # what this toolkit did not write is no part of the card
            origin = adapter.origin(path)
            if origin and origin.base_digest == base.digest:
                found.append((path, origin))
    return found


def write(folder: Path, adapters: Sequence[tuple[Path, Provenance]], repo: str = "") -> Path:
    """Write the card beside the adapters, which share one base and go to ``repo`` on the Hub. Its path."""
    path = folder / NAME
    files = {file_hash(file) for file, _ in adapters if file.is_file()}
    with whole_file(path) as aside:
        text = "\n".join([render(adapters, repo), *audits.section(folder, files), ""])
        aside.write_text(text, encoding="utf-8")
    return path


def render(adapters: Sequence[tuple[Path, Provenance]], repo: str = "") -> str:
    """Card text: YAML head, a table of the adapters, how to use one, and what was seen in training."""
    first = adapters[0][1]
    name = bases.public_name(first.base, first.base_digest)
    base = bases.HUB.get(name, name)
    wanted = [
        prompt_template.fill(one.prompt, one.word(label)) for _, one in adapters for label in one.classes
    ]
    head = {
        "license": cards.licence([name]),
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": [TAGS.get(first.method, "lora"), "text-to-image", "diffusers", f"base-{first.family}"],
        "widget": [{"text": text} for text in dict.fromkeys(wanted)],
    }
    if cards.is_hub_id(base):
        head["base_model"] = base
    return "\n".join(
        [
            cards.head(head),
            f"# {TITLES.get(first.method, 'LoRA adapters')} for {cards.plain(name)}",
            "",
            f"Trained on {cards.code(cards.public(first.data))} with the base {cards.plain(base)} "
            f"({first.family}, {first.resolution} px). The base's licence applies.",
            "",
            cards.table(COLUMNS, [_row(path, one) for path, one in adapters]),
            "",
            "*Ledger*: digest of the SHA-256 hashes of every real image trained on; the hashes themselves "
            "are in each file's header, so that a classifier's test images can be checked against them.",
            "",
            *_privacy(adapters),
            snippets.markdown(*adapters[0], repo),
            *(line for path, one in adapters for line in _pictures(path, one)),
        ]
    )


def _privacy(adapters: Sequence[tuple[Path, Provenance]]) -> list[str]:
    """What the adapters that were trained so promise."""
    lines = [
        f"- {cards.plain(path.name)}: {cards.plain(privacy.described(one.privacy))}"
        for path, one in adapters
        if one.privacy
    ]
    head = [
        "## Differential privacy (experimental)",
        "",
        f"{privacy.COVERED} Who was among the photos, losses and the loss curve are withheld.",
        "",
    ]
    return [*head, *lines, ""] if lines else []


def _pictures(path: Path, one: Provenance) -> list[str]:
    """Samples and loss curve of an adapter, where they were written."""
    curve, samples = sheet_paths(path)
    lines = []
    if samples.is_file():
        label = cards.plain(", ".join(one.classes))
        lines += [f"## {label}", "", "The same seeds without and with the adapter:", ""]
        lines += [f"![Samples of {label} by the base alone and with the adapter]({samples.name})", ""]
    if curve.is_file():
        lines += [f"![Loss of {cards.plain(path.stem)} over the steps]({curve.name})", ""]
    return lines


def _row(path: Path, one: Provenance) -> list[object]:
    losses = " to ".join(f"{one.losses[key]:.4f}" for key in ("first", "last") if key in one.losses)
    ledger = sha256("\n".join(sorted(one.trained_on)).encode())[:12]
    seen = (len(one.trained_on), f"`{ledger}`") if one.ledger is not None else ("not said", "withheld")
    return [
        cards.plain(path.name),
        cards.plain(", ".join(one.classes)),
        *seen,
        one.method,
        cards.plain(", ".join([*one.targets, *(name.replace("_", " ") for name in one.text_encoders)])),
        one.rank,
        f"{one.alpha:g}",
        one.steps,
        losses,
    ]
