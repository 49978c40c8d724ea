"""A captioning model of transformers, from disk or the Hub, and what it says of photos."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from orchard.cli.terminal import bar
from orchard.errors import UserError, one_line
from orchard.files import checked_json
from orchard.images.images import Photo

FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")
QUESTION = "Describe background, number and pose of what is shown in a short phrase, without naming it."
"""For models that chat; the others caption without being asked."""
TASKS = {"florence2": "<CAPTION>"}
"""What models want to be told, by their type."""
LONGEST = 60
"""Tokens of a caption."""


def fetch(name: str) -> Path:
    """The folder of a captioning model, downloaded where it is not on disk; no weight is read.

    Raises:
        UserError: it cannot be had, or is another kind of model.
    """
    from huggingface_hub import snapshot_download
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    folder = Path(name).expanduser()
    hint = "give the folder or Hub id of BLIP, Florence-2, Qwen-VL or their like, or leave it out to measure"
    try:
        if not folder.is_dir():
            folder = Path(snapshot_download(name, allow_patterns=list(FILES)))
    except Exception as error:  # the Hub client raises whatever its transport raises
        reason = f"no folder, and not to be had from the Hub ({one_line(error)})"
        raise UserError(f"--captioner {name}: {reason}; {hint}") from None
    try:
        config = checked_json.parse(checked_json.read(folder / "config.json"))
        kind = checked_json.table({"model_type": str}, config)["model_type"]
    except (OSError, ValueError) as error:
        reason = f"its config.json cannot be read ({one_line(error)})"
        raise UserError(f"--captioner {name}: {reason}; {hint}") from None
    # A type that transformers does not know could only be run by code that comes with it.
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise UserError(f"--captioner {name}: a {kind}, which does not caption images; {hint}")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"--captioner {name}: no safetensors weights in {folder}; {hint}")
    return folder


def describe(folder: Path, photos: Sequence[Photo], device: torch.device, *, show: bool) -> Iterator[str]:
    """What the model in ``folder`` says of each photo: its most likely words, so the same each time.

    Raises:
        UserError: it cannot be loaded, or cannot caption.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    dtype = torch.float32 if device.type == "cpu" else "auto"
    try:
        processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            folder, use_safetensors=True, dtype=dtype, local_files_only=True
        )
        model = model.to(device).eval()
        with bar("captioning", len(photos), unit="photos", show=show) as advance:
            for photo in photos:
                yield _caption(model, processor, photo)
                advance(1)
    except UserError:
        raise
    except Exception as error:  # whatever files of a stranger lead it into
        raise UserError(f"--captioner {folder}: cannot caption ({one_line(error)}); choose another") from None


@torch.inference_mode()
def _caption(model: Any, processor: Any, photo: Photo) -> str:
    image, asked = photo.image(), 0
    if getattr(processor, "chat_template", None):
        question = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        asked = inputs["input_ids"].shape[1]
    else:
        task = TASKS.get(model.config.model_type)
        inputs = processor(images=image, **({"text": task} if task else {}), return_tensors="pt")
    words = model.generate(**inputs.to(model.device, model.dtype), max_new_tokens=LONGEST, do_sample=False)
    return str(processor.batch_decode(words[:, asked:], skip_special_tokens=True)[0])
