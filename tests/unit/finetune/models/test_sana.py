"""Sana: trained and sampled by the commands, its file in the stock pipeline, and what it cannot do."""

import numpy as np
import pipelines
import pytest
import torch
from diffusers import SanaPipeline

from finetune.command import train
from finetune.config import TrainLora
from generate.command import generate
from generate.config import Generate
from orchard import shards
from orchard.adapters import adapter, layers
from orchard.bases import prompt_embeds
from orchard.images.images import decode

SIZE = {"height": 32, "width": 32, "use_resolution_binning": False}
CALL = {"num_inference_steps": 3, "guidance_scale": 3.0, **SIZE}
SMALL = {"precision": "fp32", "data": "demo", "classes": ("apple",)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny Sana, and the folder of an adapter that was trained on it."""
    root = tmp_path_factory.mktemp("sana")
    base = pipelines.tiny_sana(root / "base")
    options = {"steps": 3, "batch_size": 2, "learning_rate": 0.05, "cache": "none", "sheets": False}
    train(TrainLora(base=str(base), output=root / "adapters", caption_dropout=0.5, **options, **SMALL))
    return base, root / "adapters"


def test_the_stock_pipeline_draws_the_rows_of_generate_from_the_file(trained, tmp_path):
    base, folder = trained
    file = folder / "apple.safetensors"
    sampling = {"count": 2, "steps": 3, "guidance": 3.0, "scheduler": "base", "screens": ("none",)}
    generate(Generate(lora=(str(file),), output=str(tmp_path / "s"), **sampling, **SMALL))
    stock = SanaPipeline.from_pretrained(base)
    plain = stock("a photo of apple", generator=torch.Generator().manual_seed(0), output_type="np", **CALL)
    stock.load_lora_weights(folder, weight_name=file.name)
    tuned = stock("a photo of apple", generator=torch.Generator().manual_seed(0), output_type="np", **CALL)
    assert np.abs(plain.images - tuned.images).max() > 1e-2
    for one in shards.existing(tmp_path / "s"):
        for row in shards.rows_of(one.path):
            generator = torch.Generator().manual_seed(row["seed"])
            image = stock("a photo of apple", generator=generator, **CALL).images[0]
            ours = decode(row["image"]["bytes"], "row")
            assert np.abs(np.asarray(image, dtype=int) - np.asarray(ours, dtype=int)).max() <= 1


def test_an_adapter_of_sana_is_told_from_one_of_sd3(trained):
    tensors = adapter.read(trained[1] / "apple.safetensors")
    assert tensors.provenance.family == "sana"
    assert layers.family({"transformer.transformer_blocks.0.attn1.to_q.lora_A.weight": (4, 8)}) == "Sana"
    assert layers.family({"transformer.transformer_blocks.0.attn2.to_q.lora_A.weight": (4, 8)}) == "SD 3"


def test_the_empty_prompt_is_read_without_the_instruction(trained):
    _, pipe = pipelines.load(trained[0])
    empty = prompt_embeds.encode(pipe, [""], negative=True)
    for name in ("prompt_embeds", "prompt_attention_mask"):
        assert torch.equal(empty[name], empty[f"negative_{name}"])
    assert not torch.equal(
        prompt_embeds.encode(pipe, ["a"], negative=False)["prompt_embeds"], empty["prompt_embeds"]
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train_text_encoder": True}, ("--train_text_encoder", "CLIP")),
        ({"method": "textual_inversion"}, ("--method textual_inversion", "SanaPipeline")),
        ({"num_vectors": 2}, ("--num_vectors", "SanaPipeline")),
        ({"export": "kohya"}, ("--export kohya", "of Sana")),
        ({"method": "lokr"}, ("--method lokr", "of Sana")),
        ({"clip_skip": 2}, ("--clip_skip 2", "leave it out")),
    ],
)
def test_what_sana_cannot_learn_is_refused(trained, tmp_path, refused, options, words):
    with refused(*words):
        train(TrainLora(base=str(trained[0]), output=tmp_path / "a", dry_run=True, **SMALL, **options))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"repaint": "centre"}, ("--repaint", "SanaPipeline")),
        ({"image_guidance": "demo"}, ("--image_guidance", "SanaPipeline")),
        ({"contrast": 0.5}, ("--contrast 0.5", "give 1")),
    ],
)
def test_what_sana_cannot_sample_is_refused(trained, tmp_path, refused, options, words):
    with refused(*words):
        generate(
            Generate(
                base=str(trained[0]), output=str(tmp_path / "s"), count=1, dry_run=True, **SMALL, **options
            )
        )
