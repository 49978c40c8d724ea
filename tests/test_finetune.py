"""The trainer's maths, its batches, and the file it writes."""

import math
from pathlib import Path

import numpy as np
import pipelines
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from finetune import learner, lora
from finetune.batches import Cache, draw, rows_of
from finetune.config import TrainLora
from finetune.families import family_of
from finetune.loss import diffusion_loss, snr, snr_weights, target
from finetune.objective import PLAIN
from finetune.training import learning_rate, train_steps
from orchard import adapter, bases

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return pipelines.tiny(tmp_path_factory.mktemp("base"))


def cache(count: int = 6) -> Cache:
    generator = torch.Generator().manual_seed(0)
    return Cache(
        mean=torch.randn(count, 2, 4, 16, 16, generator=generator).unbind(),
        std=torch.full((count, 2, 4, 16, 16), 0.1).unbind(),
        prompts={"prompt_embeds": torch.randn(2, 5, 16, generator=generator)},
        prompt_of=torch.arange(count) % 2,
    )


def provenance(base: bases.Base, **changes) -> adapter.Provenance:
    values = {
        "base": base.name,
        "base_digest": base.digest,
        "family": base.family,
        "resolution": base.resolution,
        "classes": ["apple"],
        "all_classes": ["apple", "pear"],
        "prompt": "a photo of {label}",
        "rank": 4,
        "alpha": 4.0,
        "steps": 1,
        "seed": 0,
        "losses": {},
        "trained_on": ["0" * 64],
        "data": "test",
    }
    return adapter.Provenance(**(values | changes))


def test_an_epoch_sees_every_image_once():
    rows = [row for step in range(5) for row in rows_of(step, 10, 4, seed=1)]
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10] != rows[10:]


def test_a_step_is_the_same_whatever_ran_before_it():
    assert rows_of(7, 10, 4, seed=1) == rows_of(7, 10, 4, seed=1)
    assert rows_of(7, 10, 4, seed=1) != rows_of(7, 10, 4, seed=2)


def test_two_processes_share_the_batch_of_one():
    options = {"batch_size": 4, "seed": 3, "flip": True}
    whole = draw(cache(), 5, **options)
    halves = [draw(cache(), 5, **options, part=p, parts=2) for p in (0, 1)]
    for process, half in enumerate(halves):
        for name in ("latents", "noise", "times"):
            assert torch.equal(getattr(whole, name)[process::2], getattr(half, name)), name
        assert torch.equal(whole.text["prompt_embeds"][process::2], half.text["prompt_embeds"])
    assert whole.rows[1::2] == halves[1].rows


def test_without_flips_no_mirror_image_is_drawn():
    plain = cache()
    marked = Cache(
        mean=[torch.stack([torch.zeros_like(both[0]), torch.ones_like(both[1])]) for both in plain.mean],
        std=[torch.zeros_like(both) for both in plain.std],
        prompts=plain.prompts,
        prompt_of=plain.prompt_of,
    )
    batches = [draw(marked, k, batch_size=4, seed=0, flip=False) for k in range(4)]
    assert all((batch.latents == 0).all() for batch in batches)
    mixed = [draw(marked, k, batch_size=4, seed=0, flip=True) for k in range(4)]
    assert 0 < float(np.mean([batch.latents.mean() for batch in mixed])) < 1


def test_snr_is_alpha_over_its_rest():
    alphas = torch.tensor([0.9, 0.5, 0.0])
    assert torch.allclose(snr(alphas, torch.tensor([0, 1, 2])), torch.tensor([9.0, 1.0, 0.0]))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("epsilon", [5 / 9, 1.0, 1.0]), ("v_prediction", [5 / 10, 1 / 2, 0.0]), ("sample", [5.0, 1.0, 0.0])],
)
def test_min_snr_weights_follow_the_paper(kind, expected):
    weights = snr_weights(torch.tensor([9.0, 1.0, 0.0]), 5.0, kind)
    assert torch.allclose(weights, torch.tensor(expected))


def test_velocity_turns_back_into_the_latents():
    latents, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    alphas = torch.tensor([0.3, 0.8])
    spread = alphas.view(-1, 1, 1, 1)
    noisy = spread.sqrt() * latents + (1 - spread).sqrt() * noise
    velocity = target("v_prediction", latents, noise, alphas)
    assert torch.allclose(spread.sqrt() * noisy - (1 - spread).sqrt() * velocity, latents, atol=1e-5)


def test_the_loss_is_a_weighted_mean():
    said, wanted = torch.zeros(2, 1, 2, 2), torch.stack([torch.ones(1, 2, 2), 2 * torch.ones(1, 2, 2)])
    assert diffusion_loss(said, wanted, torch.tensor([1.0, 0.5])).item() == pytest.approx((1 + 2) / 2)


def test_the_learning_rate_rises_then_falls_to_nothing():
    rates = [learning_rate(step, 100, 1.0) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[52] == pytest.approx(0.5, abs=0.02)
    assert rates[-1] < 1e-3


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_training_lowers_the_loss_on_what_it_saw(tmp_path, kind):
    base = bases.resolve(str(pipelines.tiny(tmp_path, prediction_type=kind)))
    family = family_of(bases.load(base, torch.float32, CPU), base)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    encoded = family.encode(images, ["a photo of apple"] * 2)
    parameters = lora.inject(family.pipe.unet, 4, 4, seed=0)
    config = TrainLora(steps=30, batch_size=4, learning_rate=1e-2)
    batch = draw(encoded, 0, batch_size=64, seed=9, flip=True)

    def held() -> float:
        with torch.no_grad():
            return family.loss(family.network, batch, PLAIN).item()

    before = held()
    accelerator = Accelerator()
    trained = learner.prepare(family, parameters, config, accelerator)
    losses = [s.loss for s in train_steps(family, encoded, trained, ["a", "b"], config, accelerator)]
    assert len(losses) == 30
    assert held() < before


def test_a_loss_that_is_not_finite_names_the_images(folder):
    base = bases.resolve(str(folder))
    family = family_of(bases.load(base, torch.float32, CPU), base)
    parameters = lora.inject(family.pipe.unet, 4, 4, seed=0)
    broken = cache(2)
    for mean in broken.mean:
        mean.fill_(math.nan)
    config, accelerator = TrainLora(steps=1), Accelerator()
    trained = learner.prepare(family, parameters, config, accelerator)
    steps = train_steps(family, broken, trained, ["x.jpg", "y.jpg"], config, accelerator)
    with pytest.raises(FloatingPointError, match=r"step 0.*x\.jpg|y\.jpg"):
        next(steps)


@pytest.mark.parametrize("alpha", [4.0, 1.0])
def test_the_file_gives_the_stock_pipeline_our_own_image(tmp_path, folder, alpha):
    base = bases.resolve(str(folder))
    ours = bases.load(base, torch.float32, CPU)
    plain = _image(ours)
    parameters = lora.inject(ours.unet, 4, alpha, seed=0)
    for parameter in parameters:
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    mine = _image(ours)
    adapter.save(tmp_path / "apple.safetensors", ours.unet, provenance(base, alpha=alpha))

    from diffusers import StableDiffusionPipeline

    stock = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    stock.set_progress_bar_config(disable=True)
    stock.load_lora_weights(tmp_path / "apple.safetensors")
    theirs = _image(stock)
    assert np.abs(mine - plain).max() > 1e-2
    assert np.abs(mine - theirs).max() < 1e-4


def _image(pipe) -> np.ndarray:
    generator = torch.Generator().manual_seed(5)
    return pipe("a photo of apple", generator=generator, num_inference_steps=3, output_type="np").images[0]


def test_alpha_over_rank_is_what_is_applied(tmp_path, folder):
    base = bases.resolve(str(folder))
    pipe = bases.load(base, torch.float32, CPU)
    for parameter in lora.inject(pipe.unet, 4, 2.0, seed=0):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    path = tmp_path / "a.safetensors"
    adapter.save(path, pipe.unet, provenance(base, alpha=2.0))
    fresh = bases.load(base, torch.float32, CPU)
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    before = fresh.unet.get_submodule(name).weight.detach().clone()
    adapter.attach(fresh, adapter.read(path))
    fresh.fuse_lora()
    tensors = load_file(path)
    up, down = tensors[f"unet.{name}.lora_B.weight"], tensors[f"unet.{name}.lora_A.weight"]
    after = fresh.unet.get_submodule(name).base_layer.weight
    assert torch.allclose(after, before + 2.0 / 4 * up @ down, atol=1e-5)


def test_the_header_comes_back_as_it_was_written(tmp_path, folder):
    base = bases.resolve(str(folder))
    pipe = bases.load(base, torch.float32, CPU)
    lora.inject(pipe.unet, 4, 4, seed=0)
    written = provenance(base, classes=["Äpfel & <b>"], all_classes=["Äpfel & <b>", "pear"])
    adapter.save(tmp_path / "a.safetensors", pipe.unet, written)
    found = adapter.read(tmp_path / "a.safetensors")
    assert found.provenance == written
    assert found.cross_attention_dim == 16


def test_a_lora_for_another_width_is_refused_before_loading(tmp_path, folder, refused):
    other = bases.resolve(str(pipelines.tiny(tmp_path / "wide", width=32)))
    base = bases.resolve(str(folder))
    pipe = bases.load(base, torch.float32, CPU)
    lora.inject(pipe.unet, 4, 4, seed=0)
    adapter.save(tmp_path / "a.safetensors", pipe.unet, provenance(base))
    with refused("a.safetensors", "text width 16", "text width 32"):
        adapter.require_fit(adapter.read(tmp_path / "a.safetensors"), other)


def test_weights_that_are_not_finite_are_refused(tmp_path, folder, refused):
    from safetensors.torch import save_file

    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {
        f"{name}.lora_A.weight": torch.full((4, 32), math.nan),
        f"{name}.lora_B.weight": torch.ones(32, 4),
    }
    save_file(tensors, tmp_path / "nan.safetensors")
    with refused("1 of 2", "NaN"):
        adapter.require_finite(adapter.read(tmp_path / "nan.safetensors"))


def test_a_lora_of_which_half_matches_is_refused(tmp_path, folder, refused):
    from safetensors.torch import save_file

    base = bases.resolve(str(folder))
    pipe = bases.load(base, torch.float32, CPU)
    lora.inject(pipe.unet, 4, 4, seed=0)
    adapter.save(tmp_path / "a.safetensors", pipe.unet, provenance(base))
    tensors = load_file(tmp_path / "a.safetensors")
    renamed = {key.replace("mid_block", "no_block"): value for key, value in tensors.items()}
    save_file(renamed, tmp_path / "half.safetensors")
    found = adapter.read(tmp_path / "half.safetensors")
    with refused("half.safetensors"):
        adapter.attach(bases.load(base, torch.float32, CPU), found)


def test_a_lora_made_on_other_weights_of_the_same_base_is_refused(tmp_path, folder, refused):
    base = bases.resolve(str(folder))
    pipe = bases.load(base, torch.float32, CPU)
    lora.inject(pipe.unet, 4, 4, seed=0)
    adapter.save(tmp_path / "a.safetensors", pipe.unet, provenance(base, base_digest="0" * 64))
    with refused("other weights", "train it again"):
        adapter.require_fit(adapter.read(tmp_path / "a.safetensors"), base)


@pytest.mark.parametrize("content", [b"", b"hello" * 10])
def test_a_file_that_is_not_safetensors_is_refused(tmp_path, refused, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with refused("a.safetensors", "not a safetensors file"):
        adapter.read(tmp_path / "a.safetensors")


def test_removing_the_adapter_gives_the_base_back(folder):
    pipe = bases.load(bases.resolve(str(folder)), torch.float32, CPU)
    plain = _image(pipe)
    for parameter in lora.inject(pipe.unet, 4, 4, seed=0):
        torch.nn.init.ones_(parameter)
    lora.remove(pipe.unet)
    assert np.array_equal(_image(pipe), plain)


def test_an_adapter_trained_second_equals_the_same_one_trained_alone(folder):
    base = bases.resolve(str(folder))
    config = TrainLora(steps=3, batch_size=2)

    def train(pipe) -> list[torch.Tensor]:
        family = family_of(pipe, base)
        parameters = lora.inject(pipe.unet, 4, 4, seed=0)
        accelerator = Accelerator()
        trained = learner.prepare(family, parameters, config, accelerator)
        list(train_steps(family, cache(), trained, ["x"] * 6, config, accelerator))
        found = [parameter.detach().clone() for parameter in parameters]
        lora.remove(pipe.unet)
        return found

    twice = bases.load(base, torch.float32, CPU)
    train(twice)
    alone = bases.load(base, torch.float32, CPU)
    assert all(torch.equal(a, b) for a, b in zip(train(twice), train(alone), strict=True))
