"""The known ways in which such projects fail on LoRA files and samples, run through the commands.

The flags of P13 that only a stub can set are in test_checker.
"""

import io
from pathlib import Path

import checkers
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import StableDiffusionPipeline
from loras import OUT, QUERY, kohya, matrices
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from shell import GENERATE, TRAIN, command, refusal

from orchard import shards
from orchard.images.images import decode


def pixels(row: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])), dtype=int)


def test_p08_p09_p12_alpha_dialect_and_batch_change_no_image(tmp_path, base, fruit):
    """kohya's file of alpha 1, rank 4, one image a batch; peft's of the product / 4, three a batch."""
    found = {name: (down, up / 8) for name, (down, up) in matrices(QUERY, OUT).items()}
    save_file(kohya(found, 1.0), tmp_path / "kohya.safetensors")
    peft = {}
    for name, (down, up) in found.items():
        peft[f"base_model.model.{name}.lora_A.weight"] = down
        peft[f"base_model.model.{name}.lora_B.weight"] = (up / 4).contiguous()
    save_file(peft, tmp_path / "peft.safetensors")
    real = ("--data", fruit, "--classes", "apple", "--base", base)
    small = ("--count", 4, "--steps", 2, "--seed", 3, "--precision", "fp32", "--screens", "none")
    made = {}
    for name, batch in (("kohya", 1), ("peft", 3)):
        lora = ("--lora", tmp_path / f"{name}.safetensors", "--batch_size", batch, "--output", name)
        command(tmp_path, *GENERATE, *lora, *real, *small)
        (shard,) = shards.existing(tmp_path / name)
        made[name] = shard.header.arguments["lora_scale"], shards.rows_of(shard.path)
    assert [scale for scale, _ in made.values()] == [0.25, 1.0]
    for one, other in zip(*(rows for _, rows in made.values()), strict=True):
        assert one["seed"] == other["seed"]
        pixels = [np.asarray(decode(row["image"]["bytes"], "x"), dtype=int) for row in (one, other)]
        assert np.abs(pixels[0] - pixels[1]).max() <= 1
    assert len({row["seed"] for row in made["peft"][1]}) == 4
    command(tmp_path, *GENERATE, "--output", "untuned", *real, *small)
    (shard,) = shards.existing(tmp_path / "untuned")
    assert shards.rows_of(shard.path)[0]["image"]["bytes"] != made["peft"][1][0]["image"]["bytes"]


@pytest.mark.slow
def test_p12_an_ancestral_sampler_gives_one_image_at_every_batch_size(tmp_path, base):
    """It draws noise at every step too, and four images are not a multiple of three."""
    words = ("--base", base, "--data", "demo", "--classes", "apple", "--count", 4, "--seed", 3, "--steps", 3)
    words = (*words, "--scheduler", "euler_a", "--screens", "none", "--precision", "fp32")
    made = []
    for batch in (1, 2, 3):
        command(tmp_path, *GENERATE, *words, "--batch_size", batch, "--output", str(batch))
        (path,) = (tmp_path / str(batch) / "data").glob("*.parquet")
        made.append(pq.read_table(path).to_pylist())
    first, *others = made
    assert len(first) == 4
    assert len({row["seed"] for row in first}) == 4
    assert {row["scheduler"] for row in first} == {"euler_a"}
    for rows in others:
        assert [row["seed"] for row in rows] == [row["seed"] for row in first]
        for one, other in zip(first, rows, strict=True):
            assert np.abs(pixels(one) - pixels(other)).max() <= 1
    assert all(np.abs(pixels(one) - pixels(first[0])).max() > 8 for one in first[1:])


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("base_model.model.model.layers.0.self_attn.q_proj", "0 of 2 LoRA tensors matched"),
        ("unet.down_blocks.3.attentions.0.proj_in", "SD 1 or SD 2"),
    ],
    ids=["p09", "p10"],
)
def test_p09_p10_a_lora_that_fits_nowhere_is_refused(tmp_path, base, fruit, key, words):
    down, up = next(iter(matrices(QUERY).values()))
    save_file({f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}, tmp_path / "a.safetensors")
    real = ("--data", fruit, "--classes", "apple", "--base", base)
    line = refusal(tmp_path, *GENERATE, "--lora", tmp_path / "a.safetensors", *real)
    assert "a.safetensors" in line
    assert words in line


def as_variant(folder: Path, copy: Path, variant: str | None) -> Path:
    """The pipeline in half precision, as ``save_pretrained`` writes it, with a safety checker."""
    whole = checkers.with_checker(folder, copy.with_name(f"{copy.name} whole"), checkers.NEVER)
    pipe = StableDiffusionPipeline.from_pretrained(whole, torch_dtype=torch.float16)
    pipe.save_pretrained(copy, variant=variant)
    return copy


def test_p19_a_base_of_fp16_files_alone_is_the_same_weights_saved_plainly(tmp_path, base):
    small = ("--data", "demo", "--classes", "apple", "--precision", "fp32", "--steps", 2)
    made = {}
    for name, variant in {"plain": None, "variant": "fp16"}.items():
        folder = as_variant(base, tmp_path / name, variant)
        assert (folder / "unet" / "diffusion_pytorch_model.safetensors").exists() == (variant is None)
        words = ("--base", folder, *small, "--output", tmp_path / name, "--no_sheets", "--batch_size", 1)
        said = command(tmp_path, *TRAIN, *words)
        assert ("weights in fp16" in said) == (variant is not None)
        lora = ("--lora", folder / "apple.safetensors", "--screens", "none", "--count", 2)
        command(tmp_path, *GENERATE, *lora, *small, "--output", f"{name} set")
        (path,) = (tmp_path / f"{name} set" / "data").glob("*.parquet")
        made[name] = load_file(folder / "apple.safetensors"), pq.read_table(path).to_pylist()
    (tensors, rows), (others, others_rows) = made.values()
    assert all(torch.equal(tensors[key], others[key]) for key in tensors)
    for one, other in zip(rows, others_rows, strict=True):
        assert np.array_equal(pixels(one), pixels(other))
    assert np.abs(pixels(rows[0]) - pixels(rows[1])).max() > 8


def test_p20_an_adapter_that_starts_from_the_bases_singular_vectors(tmp_path, base):
    """The folder that peft saves, given to the command: peft's merged weights give the same pictures."""
    pipe = StableDiffusionPipeline.from_pretrained(base)
    plain = pipe.unet.get_submodule(QUERY).weight.detach().clone()
    torch.manual_seed(0)
    tuned = get_peft_model(pipe.unet, LoraConfig(init_lora_weights="pissa", r=4, target_modules=["to_q"]))
    optimizer = torch.optim.Adam([p for p in tuned.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(5):
        latents, states = torch.randn(1, 4, 16, 16), torch.randn(1, 5, 16)
        tuned(latents, torch.tensor([3]), states).sample.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    tuned.save_pretrained(tmp_path / "pissa")
    real = ("--data", "demo", "--classes", "apple", "--base", base, "--precision", "fp32")
    small = ("--count", 1, "--steps", 3, "--screens", "none", "--scheduler", "base")
    command(tmp_path, *GENERATE, "--lora", "pissa", *real, *small, "--output", "s")
    (row,) = shards.rows_of(shards.path_of(tmp_path / "s", "apple", 0))
    pipe.unet = tuned.merge_and_unload()
    assert (pipe.unet.get_submodule(QUERY).weight - plain).abs().max() > 1e-3
    generator = torch.Generator().manual_seed(row["seed"])
    options = {"num_inference_steps": 3, "guidance_scale": 2.0, "generator": generator}
    image = np.asarray(pipe(row["prompt"], **options).images[0], dtype=int)
    assert np.abs(image - pixels(row)).max() <= 1
    config = tmp_path / "pissa" / "adapter_config.json"
    config.write_text(config.read_text().replace('"pissa"', '"pissa_niter_4"'))
    line = refusal(tmp_path, *GENERATE, "--lora", "pissa", *real, *small, "--output", "t", "--dry_run")
    assert "its config says init_lora_weights pissa_niter_4" in line


def test_p13_the_second_of_four_images_is_flagged_and_sampled_with_another_seed(tmp_path, base):
    """By the command, with a checker of the stock class in the base's folder."""
    checked = checkers.with_checker(base, tmp_path / "base", checkers.NEVER)
    words = ("--base", checked, "--data", "demo", "--classes", "apple", "--count", 4, "--steps", 2)
    words = (*words, "--precision", "fp32", "--batch_size", 4, "--screens", "none")
    said = command(tmp_path, *GENERATE, *words, "--output", "lenient")
    assert "requested 4, written 4, flagged 0, rejected 0" in said
    plain = shards.rows_of(shards.path_of(tmp_path / "lenient", "apple", 0))
    checkers.flag_the_second(checked, [Image.open(io.BytesIO(row["image"]["bytes"])) for row in plain])
    said = command(tmp_path, *GENERATE, *words, "--output", "strict")
    assert "requested 4, written 4, flagged 1, rejected 0" in said
    rows = shards.rows_of(shards.path_of(tmp_path / "strict", "apple", 0))
    assert [row["attempt"] for row in rows] == [0, 1, 0, 0]
    assert rows[1]["seed"] not in {row["seed"] for row in plain}
    for k in (0, 2, 3):
        assert rows[k] == plain[k]
    assert np.abs(pixels(rows[1]) - pixels(plain[1])).max() > 8
    assert all(pixels(row).max() > 0 for row in rows)


def test_p13_a_run_whose_images_are_all_flagged_ends_in_an_error(tmp_path, base):
    strict = checkers.with_checker(base, tmp_path / "strict", checkers.ALWAYS)
    words = ("--base", strict, "--data", "demo", "--classes", "apple", "--count", 8, "--steps", 1)
    output = command(tmp_path, *GENERATE, *words, "--precision", "fp32", "--batch_size", 8, code=2)
    assert "Traceback" not in output
    line = output.strip().splitlines()[-1]
    assert line.startswith(
        "error: apple image 7 is flagged by the safety checker with 5 seeds, and so were all 8"
    )
