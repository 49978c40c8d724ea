"""The safety checker of a base, which stock pipelines load with it and `bases.load` leaves out."""

from pathlib import Path
from typing import Any

from orchard.bases import bases, components
from orchard.bases.bases import Base
from orchard.bases.pipeline import Pipeline
from orchard.errors import UserError, one_line

PART = "safety_checker"
WITHOUT = "--no_safety_checker does without"


def has(base: Base) -> bool:
    """Whether the base's index names one; a single file brings none along."""
    return base.file is None and bool((bases.index(base).get(PART) or [None])[0])


def add(pipe: Pipeline, base: Base) -> None:
    """Put the base's checker into its pipeline, on the denoiser's device; nothing when it has none.

    Raises:
        UserError: the base names one that is not there.
    """
    if not has(base):
        return
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

    folder = _folder(base)
    options = {"torch_dtype": pipe.unet.dtype, "use_safetensors": True, "local_files_only": True}
    try:
        options |= {"variant": components.variant_of(folder, [PART], base.name)}
        found: Any = StableDiffusionSafetyChecker.from_pretrained(folder / PART, **options)
        processor = CLIPImageProcessor.from_pretrained(folder / "feature_extractor", local_files_only=True)
    except (OSError, ValueError, UserError) as error:
        raise UserError(
            f"--base {base.name}: its safety checker cannot be read ({one_line(error)}); {WITHOUT}"
        ) from None
    pipe.register_modules(safety_checker=found.to(pipe.device).eval(), feature_extractor=processor)


def _folder(base: Base) -> Path:
    """Where the checker lies; a base from the Hub came without its weights."""
    there = components.weights(base.folder, PART) or Path(base.name).is_dir()
    return base.folder if there else bases.fetch(base, PART, WITHOUT)
