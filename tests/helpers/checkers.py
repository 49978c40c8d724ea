"""Small safety checkers of the stock class, in the folder of a base."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

NEVER, ALWAYS = 2.0, -2.0
"""Thresholds that no cosine reaches, or every one does."""


def with_checker(folder: Path, copy: Path, threshold: float) -> Path:
    """A copy of the base that has a small safety checker of the stock class."""
    shutil.copytree(folder, copy)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = sizes | {"image_size": 16, "patch_size": 8}
    one = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, text_config=sizes, projection_dim=8))
    torch.nn.init.constant_(one.concept_embeds_weights, threshold)
    torch.nn.init.constant_(one.special_care_embeds_weights, NEVER)
    one.save_pretrained(copy / "safety_checker")
    CLIPImageProcessor(size=16, crop_size=16).save_pretrained(copy / "feature_extractor")
    index = json.loads((copy / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (copy / "model_index.json").write_text(json.dumps(index))
    return copy


def flag_the_second(base: Path, images: Sequence[Image.Image]) -> None:
    """Set the base's checker to a concept that the second of these four images alone is like.

    By the stock checker's networks: along the direction in which the images' states are 1 for the second and
    0 for the others, its cosine is the largest; the threshold stands close below it.
    """
    one = StableDiffusionSafetyChecker.from_pretrained(base / "safety_checker")
    clip = CLIPImageProcessor.from_pretrained(base / "feature_extractor")(images, return_tensors="pt")
    with torch.no_grad():
        states = one.visual_projection(one.vision_model(clip.pixel_values)[1])
    wanted = torch.zeros(len(states), 1)
    wanted[1] = 1
    concept = torch.linalg.lstsq(states, wanted, driver="gelsd").solution[:, 0]
    cosines = torch.nn.functional.cosine_similarity(states, concept[None])
    first, second = cosines.sort(descending=True).values[:2]
    assert cosines.argmax() == 1 and first - second > 0.02, cosines
    torch.nn.init.constant_(one.concept_embeds_weights, NEVER)
    one.concept_embeds.data[0], one.concept_embeds_weights.data[0] = concept, first - 0.01
    one.save_pretrained(base / "safety_checker")
