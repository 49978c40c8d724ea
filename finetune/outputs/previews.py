"""Sheets of samples while and after an adapter is trained, at seeds that never change."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from finetune.context import Job, Setup
from finetune.models.sampling import sample
from orchard import prompt_template
from orchard.files import atomic
from orchard.files.atomic import whole_file
from orchard.images.splits import stable_hash

FOLDER = "previews"
COUNT = 4
"""Samples of each class."""
GAP = 4
"""White pixels between images."""

Samples = Mapping[str, Sequence[Image.Image]]
"""Images by class."""


def sample_classes(setup: Setup, job: Job) -> Samples:
    """`COUNT` images of each class of the job, from the pipeline as it stands.

    The main process samples and the others get nothing, unless the network is spread over all of them.

    Raises:
        BrokenOffError: a signal came; a network that is spread over processes is used to the end.
    """
    if not (setup.accelerator.is_main_process or setup.sharded):
        return {}
    between = (lambda: None) if setup.sharded else setup.interrupt.break_off
    found = {}
    for label in job.classes:
        seeds = [stable_hash("preview", setup.config.seed, label, number) for number in range(COUNT)]
        prompt = prompt_template.fill(setup.config.prompt, label)
        found[label] = sample(setup.family.pipe, prompt, seeds, between=between)
    return found


def path_of(output: Path, label: str, step: int) -> Path:
    """Where the preview of a class after ``step`` steps goes."""
    return output / FOLDER / f"{atomic.file_name(label)}-{step:06d}.png"


def row(images: Sequence[Image.Image]) -> Image.Image:
    """Images of one size side by side."""
    width, height = images[0].size
    strip = Image.new("RGB", (len(images) * (width + GAP) - GAP, height), "white")
    for place, image in enumerate(images):
        strip.paste(image, (place * (width + GAP), 0))
    return strip


def captioned(rows: Mapping[str, Sequence[Image.Image]]) -> Image.Image:
    """Rows of images under each other, each below its name."""
    strips = {name: row(images) for name, images in rows.items()}
    font = ImageFont.truetype(_font(), size=max(11, next(iter(strips.values())).height // 16))
    line = sum(font.getmetrics()) + GAP
    width = max(max(strip.width, round(font.getlength(name)) + GAP) for name, strip in strips.items())
    height = sum(line + strip.height + GAP for strip in strips.values())
    sheet, top = Image.new("RGB", (width, height), "white"), 0
    for name, strip in strips.items():
        ImageDraw.Draw(sheet).text((GAP // 2, top), name, fill="black", font=font)
        sheet.paste(strip, (0, top + line))
        top += line + strip.height + GAP
    return sheet


def _font() -> str:
    """DejaVu Sans, which comes with matplotlib and knows more scripts than Pillow's own."""
    from matplotlib import font_manager

    return font_manager.findfont("DejaVu Sans")


def before_and_after(before: Samples, after: Samples) -> Image.Image:
    """Two rows a class: the base alone, and with the adapter, at equal seeds."""
    rows = {}
    for label, images in after.items():
        rows[f"{label}: base alone"] = before[label]
        rows[f"{label}: with adapter"] = images
    return captioned(rows)


def write(image: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with whole_file(path) as aside:
        image.save(aside, "PNG", optimize=True)
