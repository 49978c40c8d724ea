"""What training a pipeline has had, and the model card that says so."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import StableDiffusionPipeline

from mini import captions, data, denoiser, export, loop, quality
from orchard.images.traits import COLOURS

CARD = """---
license: apache-2.0
pipeline_tag: text-to-image
library_name: diffusers
---

# mini

A Stable Diffusion pipeline of {millions:.1f} M weights, trained from scratch on a CPU for 64x64 pictures of
40 kinds of fruit. Prompts it knows: `a photo of banana`, `a photo of a green apple on blue paper`,
`a photo of red and yellow apple, scene background, several`. Colours, before the fruit and of the ground:
{colours}. Backgrounds: a colour, `scene`, a colour and
`scene`. At the end any of {phrases}. It knows nothing else: no other
objects, no styles, no sentences.

| | |
|---|---|
| training photos | {photos} web photos (Fruits-40-EU), cropped to the photo, 64 px |
| cost | {cost} on the CPU, bf16 |
{runs}
| seed | {seed} |
| prediction | v-prediction, zero terminal SNR |
| autoencoder | L1 {l1:.3f} in [-1, 1], {detail:.0%} of the photos' fine detail (energy of the Laplacian) |

Its pictures are small and its knowledge ends at those fruits. Labels of the training photos are noisy.
"""
RUN = "| {images:,} images seen by the denoiser | {framing}; {share:.0%} of the draws from {focus} |"
STAGES, RUNS = "stages", "runs"


def history(args: argparse.Namespace, names: tuple[str, ...], earlier: dict[str, Any]) -> dict[str, Any]:
    """Seconds and steps of each stage, and the denoiser's runs in order, those of the start included."""
    stages = {name: dict(stage) for name, stage in earlier.get(STAGES, {}).items()}
    for name in names:
        if (path := args.work / f"{name}.pt").exists():
            stage = stages.setdefault(name, {"seconds": 0, "steps": 0})
            seconds, steps = loop.taken(path)
            stage["seconds"] += round(seconds)
            stage["steps"] += steps
    this = {
        "images": loop.taken(args.work / "denoiser.pt")[1] * denoiser.BATCH,
        "focus": args.focus,
        "share": args.focus_share,
        "framing": data.FRAMING,
    }
    return {STAGES: stages, RUNS: [*earlier.get(RUNS, []), this]}


def earlier(folder: Path | None) -> dict[str, Any]:
    """The history of the pipeline in ``folder``; empty without one."""
    return json.loads((folder / export.HISTORY).read_text()) if folder else {}


def card(
    args: argparse.Namespace,
    photos: data.Photos,
    pipe: StableDiffusionPipeline,
    past: dict[str, Any],
) -> str:
    """The model card, with what was spent and what the result can do."""
    modules = (pipe.unet, pipe.vae, pipe.text_encoder)
    runs = [RUN.format(**{**one, "focus": ", ".join(one["focus"])}) for one in past[RUNS]]
    return CARD.format(
        millions=sum(p.numel() for module in modules for p in module.parameters()) / 1e6,
        colours=", ".join(f"`{colour}`" for colour in COLOURS),
        phrases=", ".join(f"`{word}`" for words in captions.WORDS.values() for word in words.values()),
        photos=f"{len(np.unique(photos.photo)):,}",
        cost=", ".join(f"{name} {stage['seconds'] / 60:.0f} min" for name, stage in past[STAGES].items()),
        runs="\n".join(runs),
        seed=args.seed,
        **quality.reconstruction(pipe.vae, photos),
    )
