"""Segmenters of transformers, on disk or the Hub: CLIPSeg finds a class by its word, SAM what is in a box."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from generate.masking import masks
from generate.masking.masks import CONFIG, MaskSource
from orchard import devices
from orchard.errors import UserError, one_line
from orchard.files import checked_json
from orchard.images.images import Photo

SURE = 0.5
"""Probability from which on CLIPSeg's pixel is the object."""
FILES = ("*.json", "*.txt", "*.safetensors")


@functools.cache
def load(name: str) -> MaskSource:
    """The segmenter in a folder, or on the Hub under ``name``.

    Raises:
        UserError: it is not there, cannot be fetched, or is none that is known.
    """
    folder = Path(name).expanduser()
    folder = folder if folder.is_dir() else _fetched(name)
    try:
        kind = checked_json.parse(checked_json.read(folder / CONFIG)).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"--mask {name}: its {CONFIG} cannot be read ({error}); give another one") from None
    if kind not in KINDS:
        raise UserError(f"--mask {name}: of type {str(kind)[:60]}; supported are {', '.join(KINDS)}")
    try:
        return KINDS[kind](folder)
    except Exception as error:  # whatever its files make the loader raise
        raise UserError(f"--mask {name}: cannot be loaded ({one_line(error)})") from None


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download

    choices = "give boxes, grabcut, a folder of mask images, or a segmenter's folder or Hub id"
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(f"--mask {name}: no such folder; {choices}")
    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except Exception as error:  # the Hub client raises whatever its transport raises
        raise UserError(
            f"--mask {name}: not on this machine, nor to be had from the Hub ({one_line(error)}); {choices}"
        ) from None


class ClipSeg:
    """Pixels that CLIPSeg takes for the photo's class. Lüddecke and Ecker 2022."""

    kind = "clipseg"

    def __init__(self, folder: Path) -> None:
        from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

        self.processor, self.model = _loaded(CLIPSegProcessor, CLIPSegForImageSegmentation, folder)

    @torch.no_grad()
    def __call__(self, photo: Photo, image: Image.Image) -> Image.Image:
        """As `MaskSource`."""
        inputs = self.processor(text=[photo.label], images=[image], padding=True, return_tensors="pt")
        logits = self.model(**inputs.to(self.model.device)).logits.float().cpu()
        sure = logits.reshape(1, 1, *logits.shape[-2:]).sigmoid()
        size = (image.height, image.width)
        resized = torch.nn.functional.interpolate(sure, size, mode="bilinear", align_corners=False)
        return _image(resized[0, 0] > SURE)


class Sam:
    """What SAM or SAM 2 finds within the photo's boxes. Kirillov et al. 2023, Ravi et al. 2024."""

    def __init__(self, folder: Path, kind: str = "sam") -> None:
        import transformers

        self.kind = kind
        name = kind.capitalize()
        processor, model = (getattr(transformers, f"{name}{part}") for part in ("Processor", "Model"))
        self.processor, self.model = _loaded(processor, model, folder)

    @torch.no_grad()
    def __call__(self, photo: Photo, image: Image.Image) -> Image.Image:
        """As `MaskSource`."""
        boxes = [list(box) for box in masks.boxes_of(photo)]
        inputs = self.processor(image, input_boxes=[boxes], return_tensors="pt").to(self.model.device)
        sizes = [inputs.pop(key).cpu() for key in ("original_sizes", "reshaped_input_sizes") if key in inputs]
        found = self.model(**inputs, multimask_output=False).pred_masks.cpu()
        (inside,) = self.processor.post_process_masks(found, *sizes)
        return _image(inside.reshape(-1, image.height, image.width).any(dim=0))


KINDS: Mapping[str, Callable[[Path], MaskSource]] = {
    "clipseg": ClipSeg,
    "sam": Sam,
    "sam2": functools.partial(Sam, kind="sam2"),
}


def _loaded(processor: Any, model: Any, folder: Path) -> tuple[Any, Any]:
    options = {"local_files_only": True}
    network = model.from_pretrained(folder, use_safetensors=True, **options).eval()
    return processor.from_pretrained(folder, **options), network.to(devices.processes().device)


def _image(inside: torch.Tensor) -> Image.Image:
    """(H, W) bool -> a mask."""
    return Image.fromarray(inside.numpy().astype("uint8") * 255)
