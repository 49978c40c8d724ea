"""Text encoders that are trained too: states as the stock pipeline has them, gradients, files, methods."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pipelines
import pytest
import torch
from loras import load
from safetensors.torch import load_file

from finetune.config import TrainLora
from finetune.models import lora, targets
from finetune.models.families import family_of
from finetune.models.family import Family, Network
from finetune.step.batches import draw
from finetune.step.objective import UNWEIGHTED
from finetune.training import learner
from orchard.adapters import adapter, attaching
from orchard.bases import bases

CPU = torch.device("cpu")
TINY = {
    "sd": pipelines.tiny,
    "sdxl": pipelines.tiny_sdxl,
    "sd3": pipelines.tiny_sd3,
    "sd3-t5": lambda folder: pipelines.tiny_sd3(folder, with_t5=True),
}
PROMPTS = ["a photo of apple", "a photo of pear"]
PREFIXES = {"sd": {"lora_te"}, "sdxl": {"lora_te1", "lora_te2"}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp("bases") / name) for name, make in TINY.items()}


def loaded(folder: Path) -> tuple[bases.Base, Family]:
    base = bases.resolve(str(folder))
    return base, family_of(load(base), base, trains_text=True)


def tuned(family: Family, *, rank: int = 2, **options) -> dict[str, list[torch.nn.Parameter]]:
    """Fresh adapters on everything that can have one, at alpha 3: a scale of 3/2 unless the rank differs."""
    config = TrainLora(rank=rank, alpha=3.0, train_text_encoder=True, **options)
    chosen = targets.resolve(config.targets, family.pipe, family.name, trains_text=True)
    return lora.inject_all(family, chosen, config)


def shaken(family: Family, **options) -> None:
    """Random adapters; norms of DoRA a third more than the base's."""
    tuned(family, **options)
    generator = torch.Generator().manual_seed(1)
    for model in family.models.values():
        for name, parameter in model.named_parameters():
            if "magnitude" in name:
                parameter.data *= 1.3
            elif parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.3, generator=generator)


def image(pipe) -> np.ndarray:
    generator = torch.Generator().manual_seed(5)
    return pipe(PROMPTS[0], generator=generator, num_inference_steps=3, output_type="np").images[0]


def saved(path: Path, family: Family, base: bases.Base, dialect="diffusers") -> adapter.Adapter:
    provenance = adapter.Provenance(
        base=base.name,
        base_digest=base.digest,
        family=base.family,
        resolution=32,
        classes=["apple"],
        all_classes=["apple"],
        prompt="a photo of {label}",
        rank=2,
        alpha=3.0,
        steps=1,
        seed=0,
        losses={},
        trained_on=[],
        data="test",
    )
    encoders = family.text_encoders
    adapter.save(
        path, family.denoiser, provenance, prefix=family.prefix, text_encoders=encoders, dialect=dialect
    )
    return adapter.read(path)


@pytest.mark.parametrize("name", TINY)
def test_states_from_token_ids_are_what_the_stock_pipeline_encodes(folders, name):
    _, family = loaded(folders[name])
    shaken(family)
    rows = torch.tensor([1, 0, 1])
    cached = family.encode_prompts(PROMPTS)
    states = family.prompt_embeds({name: value[rows] for name, value in cached.items()})
    extra = {"prompt_2": None, "prompt_3": None} if family.name == "sd3" else {}
    stock = family.pipe.encode_prompt(
        [PROMPTS[row] for row in rows],
        device=CPU,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
        **extra,
    )
    assert torch.allclose(states["prompt_embeds"], stock[0], atol=1e-5)
    if len(stock) > 2:
        assert torch.allclose(states["pooled_prompt_embeds"], stock[2], atol=1e-5)
    assert set(states) == {"prompt_embeds", *(["pooled_prompt_embeds"] if len(stock) > 2 else [])}


@pytest.mark.parametrize("name", TINY)
def test_a_step_reaches_every_adapter_and_lowers_the_loss(folders, name):
    _, family = loaded(folders[name])
    photos = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    cache = family.encode(photos, PROMPTS)
    parameters = [p for own in tuned(family).values() for p in own]
    batch = draw(cache, 0, batch_size=8, seed=0, flip=True)
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    network = Network(family)
    before = family.loss(network, batch, UNWEIGHTED)
    before.backward()
    assert all(parameter.grad is not None for parameter in parameters)
    assert {id(p) for p in network.parameters() if p.requires_grad} == {id(p) for p in parameters}
    optimizer.step()
    assert family.loss(network, batch, UNWEIGHTED).item() < before.item()


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("name", TINY)
def test_the_stock_pipeline_and_we_give_the_image_that_was_trained(tmp_path, folders, name, method):
    base, family = loaded(folders[name])
    plain = image(family.pipe)
    before = {place: set(model.state_dict()) for place, model in family.models.items()}
    shaken(family, method=method, targets=("attention+feedforward",))
    mine = image(family.pipe)
    assert np.abs(mine - plain).max() > 1e-2
    one = saved(tmp_path / "a.safetensors", family, base)
    other = saved(tmp_path / "kohya.safetensors", family, base, "kohya")
    plain_lora = saved(tmp_path / "merged.safetensors", family, base, "merged")
    assert one.scale == other.scale == 1.5
    assert plain_lora.methods == ("lora",)
    for found in (one, other, plain_lora):
        again = load(base)
        attaching.attach(again, found)
        assert np.abs(mine - image(again)).max() < 1e-4
    readable = [one, *((plain_lora,) if name in PREFIXES else ())]
    readable += [other] if name in PREFIXES and method == "lora" else []
    for found in readable:
        stock = load(base)
        stock.load_lora_weights(found.path)
        assert np.abs(mine - image(stock)).max() < 1e-4
    for model in family.models.values():
        lora.remove(model)
    assert before == {place: set(model.state_dict()) for place, model in family.models.items()}
    assert np.array_equal(image(family.pipe), plain)


@pytest.mark.parametrize("method", ["loha", "lokr"])
@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_loha_and_lokr_come_back_from_lycoris_names(tmp_path, folders, name, method):
    base, family = loaded(folders[name])
    plain = image(family.pipe)
    shaken(family, method=method, targets=("all",))
    mine = image(family.pipe)
    assert np.abs(mine - plain).max() > 1e-2
    one = saved(tmp_path / "a.safetensors", family, base)
    assert one.methods == (method,)
    adapter.require_fit(one, base)
    attaching.require_matching_layers(one, base)
    again = load(base)
    attaching.attach(again, one)
    assert np.abs(mine - image(again)).max() < 1e-4
    stock, plain_lora = load(base), saved(tmp_path / "merged.safetensors", family, base, "merged")
    if name == "sd3":  # of which stock diffusers reads none of kohya's names
        attaching.attach(stock, plain_lora)
    else:
        stock.load_lora_weights(plain_lora.path)
    assert np.abs(mine - image(stock)).max() < 1e-4
    for model in family.models.values():
        lora.remove(model)
    assert np.array_equal(image(family.pipe), plain)


@pytest.mark.parametrize("name", PREFIXES)
def test_kohyas_names_number_the_encoders_and_give_each_layer_its_alpha(tmp_path, folders, name):
    base, family = loaded(folders[name])
    shaken(family)
    tensors = load_file(saved(tmp_path / "a.safetensors", family, base, "kohya").path)
    stems = {key.partition(".")[0] for key in tensors}
    assert {stem.partition("_text_model")[0] for stem in stems if "lora_te" in stem} == PREFIXES[name]
    assert all(tensors[f"{stem}.alpha"].item() == 3 for stem in stems)


def test_two_whole_lokr_matrices_carry_the_scale_themselves(tmp_path, folders):
    """No tool reads an alpha there: it would be divided by a rank that they do not have."""
    base, family = loaded(folders["sd"])
    # 32 = 4 x 8, and half of 8 is a rank that saves nothing.
    shaken(family, method="lokr", rank=4)
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    layer = family.denoiser.get_submodule(name)
    tensors = load_file(saved(tmp_path / "a.safetensors", family, base).path)
    stem = f"lora_unet_{name.replace('.', '_')}"
    found = {key.partition(".")[2]: value for key, value in tensors.items() if key.startswith(f"{stem}.")}
    assert set(found) == {"lokr_w1", "lokr_w2"}
    added = torch.kron(found["lokr_w1"], found["lokr_w2"])
    assert torch.allclose(added, layer.get_delta_weight("default"), atol=1e-6)
    assert torch.allclose(found["lokr_w1"], 3 / 4 * layer.lokr_w1["default"])


def test_text_encoders_may_learn_at_their_own_rate(folders):
    _, family = loaded(folders["sdxl"])
    found = tuned(family)
    config = TrainLora(learning_rate=0.01, text_encoder_learning_rate=0.002, train_text_encoder=True)
    denoiser, text = learner.parameter_groups(found, family, config)
    assert denoiser["params"] == found["unet"]
    assert text["params"] == found["text_encoder"] + found["text_encoder_2"]
    assert text["relative"] == pytest.approx(0.2)
    (alone,) = learner.parameter_groups(found, family, replace(config, text_encoder_learning_rate=0.0))
    assert alone["params"] == denoiser["params"] + text["params"]
