"""Stages that train the embedded base: its decoder is sharpened, its denoiser goes on where it stopped."""

import json

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from mini import autoencoder, captions, denoiser, export, loop, perception
from mini.data import Photos
from mini.decoder import Sharpener
from mini.traits import Traits

NAMES = ("apple", "banana")


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> CLIPTokenizer:
    return export.tokenizer(captions.vocabulary(NAMES), tmp_path_factory.mktemp("words") / "tokenizer")


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(2, 4, 16, 16, generator=generator)
    return codes, torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1


def sharpener(monkeypatch) -> Sharpener:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    torch.manual_seed(0)
    features = perception.Features(2).eval().requires_grad_(False)
    return Sharpener(autoencoder.build().requires_grad_(False), features)


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_a_step_changes_decoder_and_adversary_and_leaves_the_encoder(monkeypatch, batch):
    one = sharpener(monkeypatch)
    modules = (one.vae.decoder, one.adversary, one.vae.encoder)
    before = [weights(module).clone() for module in modules]
    losses = one.step(*batch, rate=1e-3, weight=0.05)
    assert set(losses) == {"l1", "perceptual", "fooled", "hinge"}
    same = [torch.equal(old, weights(module)) for old, module in zip(before, modules, strict=True)]
    assert same == [False, False, True]


def test_steps_on_one_batch_bring_it_nearer(monkeypatch, batch):
    one = sharpener(monkeypatch)
    losses = [one.step(*batch, rate=1e-3, weight=0.0)["l1"] for _ in range(12)]
    assert losses[-1] < losses[0]


def test_a_restored_stage_takes_the_same_next_step(monkeypatch, batch):
    one, other = sharpener(monkeypatch), sharpener(monkeypatch)
    one.step(*batch, rate=1e-3, weight=0.05)
    other.restore(one.state())
    for stage in (one, other):
        stage.adversary.eval()  # its spectral norms estimate themselves anew at each training step
    assert one.step(*batch, rate=1e-3, weight=0.05) == other.step(*batch, rate=1e-3, weight=0.05)


@pytest.fixture
def train(monkeypatch, tmp_path, words):
    """``train(steps, latents, start)`` -> a denoiser of four photos, its state under ``tmp_path``."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(denoiser, "BATCH", 2)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    photos = Photos(
        pixels=pixels,
        labels=np.array([0, 1, 0, 1]),
        photo=np.arange(4),
        weight=np.ones(4),
        traits=[Traits(plain=False)] * 4,
        names=NAMES,
    )

    def train(steps: int, latents: torch.Tensor, start: denoiser.Denoiser | None = None) -> denoiser.Denoiser:
        return denoiser.train(
            photos,
            latents,
            words,
            tmp_path,
            steps=steps,
            seed=0,
            focus=("apple",),
            share=0.5,
            preview=lambda *_: None,
            start=start,
        )

    return train


def test_the_denoiser_goes_on_where_a_stopped_run_left_it(train, tmp_path):
    latents = torch.randn(2, 4, 8, 16, 16)
    train(3, latents)
    kept = loop.restore(tmp_path / "denoiser.pt", loop.Clock(name="", steps=1, batch_size=2))
    again = train(3, latents)  # every step is taken
    assert loop.taken(tmp_path / "denoiser.pt") == (kept["spent"], kept["step"])
    assert all(torch.equal(a, b) for a, b in zip(kept["average"], _trained(again), strict=True))
    further = train(5, latents)
    assert (kept["step"], loop.taken(tmp_path / "denoiser.pt")[1]) == (3, 5)
    assert not all(torch.equal(a, b) for a, b in zip(kept["average"], _trained(further), strict=True))


def test_masters_average_and_optimizer_come_back_as_they_were_kept(train, tmp_path, words):
    train(3, torch.randn(2, 4, 8, 16, 16))
    kept = loop.restore(tmp_path / "denoiser.pt", loop.Clock(name="", steps=1, batch_size=2))
    learner = denoiser._Learner(words, None)
    learner.restore(kept)
    found = learner.state()
    for name in ("masters", "average"):
        assert all(torch.equal(a, b) for a, b in zip(found[name], kept[name], strict=True)), name
    for moments, before in zip(*(s["optimizer"]["state"].values() for s in (found, kept)), strict=True):
        assert all(torch.equal(moments[name], before[name]) for name in ("step", "exp_avg", "exp_avg_sq"))
    live = [p for module in (learner.unet, learner.text) for p in module.parameters()]
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(live, kept["masters"], strict=True))


def test_the_denoiser_starts_from_a_written_pipeline_and_keeps_its_scale(train, tmp_path, words):
    latents = torch.randn(2, 4, 8, 16, 16)
    first = train(0.0, latents)
    before, coder = [weight.clone() for weight in _trained(first)], autoencoder.build()
    history = {"stages": {"denoiser": {"seconds": 1, "steps": 3}}, "runs": []}
    export.write(export.pipeline(coder, first, words), tmp_path / "out", "card", history)
    assert json.loads((tmp_path / "out" / export.HISTORY).read_text()) == history
    vae, start, again = export.load(tmp_path / "out")
    assert torch.equal(weights(vae).half(), weights(coder).half())
    table = captions.vocabulary(NAMES)
    assert again(table).input_ids == words(table).input_ids
    again.save_pretrained(tmp_path / "again")
    assert "local" not in (tmp_path / "again" / "tokenizer_config.json").read_text()
    (tmp_path / "denoiser.pt").unlink()
    on = train(0.0, latents * 2, start)
    assert on.scale == first.scale != train(0.0, latents * 2).scale
    assert all(torch.equal(a.half().float(), b) for a, b in zip(before, _trained(on), strict=True))


def _trained(found: denoiser.Denoiser) -> list[torch.Tensor]:
    return [*found.unet.parameters(), *found.text.parameters()]


def test_a_start_that_knew_other_words_keeps_those_that_both_know(train, words, tmp_path):
    first = train(0.0, torch.randn(2, 4, 8, 16, 16))
    more = export.tokenizer([*captions.vocabulary(NAMES), "a photo of durian"], tmp_path / "more")
    found = export.carried(first, words, more)
    before, after = (one.text.get_input_embeddings().weight for one in (first, found))
    old, new = words.get_vocab(), more.get_vocab()
    assert new.keys() - old.keys() >= {"durian</w>"} and len(new) == len(after)
    assert all(torch.equal(before[old[token]], after[new[token]]) for token in old.keys() & new.keys())
    for name, value in first.text.state_dict().items():
        assert name == export.EMBEDDINGS or torch.equal(value, found.text.state_dict()[name])
