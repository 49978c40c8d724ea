"""How prompts are read: long ones in chunks, and by another layer of CLIP."""

from pathlib import Path
from typing import Any

import pipelines
import pytest
import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from orchard.bases import bases, prompt_embeds
from orchard.bases.bases import Base
from orchard.bases.prompt_embeds import Reading

ROOM = 30
"""Tokens of a chunk of the tiny tokenizer, which spells words out, without the marks of start and end."""
LONG = "the quick brown fox jumps over the lazy dog and is tired"
"""Letters of 45, so one and a half chunks."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> dict[str, tuple[Base, Any]]:
    """A base of three layers for each family, and its pipeline."""
    root = tmp_path_factory.mktemp("bases")
    return {name: deepened(root / name) for name in ("sd", "sdxl", "sd3")}


def deepened(folder: Path) -> tuple[Base, Any]:
    pipelines.TINY[folder.name](folder)
    _, pipe = pipelines.load(folder)
    torch.manual_seed(3)
    kinds = {CLIPTextModel, CLIPTextModelWithProjection}
    for name, part in pipe.components.items():
        if type(part) in kinds:
            deeper = pipelines.text_encoder(type(part), part.config.hidden_size, layers=3)
            pipe.register_modules(**{name: deeper.eval()})
    pipe.save_pretrained(folder)
    return pipelines.load(folder)


def chunked(pipe: Any, encoder: str, prompt: str, chunks: int) -> list[Any]:
    """What the stock encoder gives for each chunk, its ids put together by hand."""
    words = getattr(pipe, encoder.replace("text_encoder", "tokenizer"))
    ids = words(prompt, add_special_tokens=False).input_ids
    found = []
    for k in range(chunks):
        part = ids[k * ROOM : (k + 1) * ROOM]
        row = [words.bos_token_id, *part, words.eos_token_id]
        row += [words.pad_token_id] * (ROOM + 2 - len(row))
        found.append(getattr(pipe, encoder)(torch.tensor([row]), output_hidden_states=True))
    return found


@torch.no_grad()
@pytest.mark.parametrize("prompt", [LONG, "a fox"])
def test_chunks_are_read_one_by_one_and_come_one_after_the_other(loaded, prompt):
    _, pipe = loaded["sd"]
    states = prompt_embeds.encode(pipe, [prompt], negative=True, reading=Reading(chunks=2))
    parts = chunked(pipe, "text_encoder", prompt, 2)
    expected = torch.cat([part.last_hidden_state for part in parts], dim=1)
    assert torch.allclose(states["prompt_embeds"], expected, atol=1e-6)
    empty = pipe.encode_prompt("", "cpu", 1, False)[0]
    assert torch.allclose(states["negative_prompt_embeds"], torch.cat([empty, empty], dim=1), atol=1e-6)


@torch.no_grad()
def test_sdxl_joins_the_chunks_of_both_encoders_and_pools_the_first(loaded):
    _, pipe = loaded["sdxl"]
    states = prompt_embeds.encode(pipe, [LONG], negative=True, reading=Reading(chunks=3))
    first, second = (chunked(pipe, name, LONG, 3) for name in ("text_encoder", "text_encoder_2"))
    layers = [torch.cat([part.hidden_states[-2] for part in parts], dim=1) for parts in (first, second)]
    assert torch.allclose(states["prompt_embeds"], torch.cat(layers, dim=-1), atol=1e-6)
    assert torch.allclose(states["pooled_prompt_embeds"], second[0].text_embeds, atol=1e-6)
    assert not states["negative_prompt_embeds"].any() and not states["negative_pooled_prompt_embeds"].any()


@torch.no_grad()
@pytest.mark.parametrize(("family", "clip_skip"), [("sd", 1), ("sd", 2), ("sd", 3), ("sdxl", 2), ("sdxl", 3)])
def test_a_layer_is_counted_from_one_where_diffusers_counts_from_nought(
    loaded, family, clip_skip, monkeypatch
):
    _, pipe = loaded[family]
    # The stock SD pipeline looks for the encoder's norm where older versions of transformers had it.
    monkeypatch.setattr(CLIPTextModel, "text_model", property(lambda model: model), raising=False)
    skipped = clip_skip - (2 if family == "sdxl" else 1)
    stock = pipe.encode_prompt(
        prompt=[LONG[:20]],
        device="cpu",
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
        clip_skip=skipped,
    )
    ours = prompt_embeds.encode(pipe, [LONG[:20]], negative=True, reading=Reading(clip_skip=clip_skip))
    for name, state in zip(prompt_embeds.STATES, stock, strict=False):
        assert torch.allclose(ours[name], state, atol=1e-6), name
    usual = prompt_embeds.encode(pipe, [LONG[:20]], negative=True)
    same = torch.allclose(ours["prompt_embeds"], usual["prompt_embeds"], atol=1e-6)
    assert same == (skipped == 0)


def test_the_longest_prompt_says_how_many_chunks_there_are(loaded):
    counts = [prompt_embeds.chunks(loaded["sd"][0], ["a", "a" * n]) for n in (0, 30, 31, 60, 61, 90, 91, 300)]
    assert counts == [1, 1, 2, 2, 3, 3, 3, 3]
    assert prompt_embeds.chunks(loaded["sd3"][0], ["a" * 300]) == 1
    assert prompt_embeds.chunks(loaded["sd"][0], []) == 1


def test_many_prompts_are_told_the_chunks_and_the_lost_words_that_each_has_alone(loaded, monkeypatch):
    monkeypatch.setattr(prompt_embeds, "AT_ONCE", 2)
    base, prompts = loaded["sd"][0], ["a" * n for n in (0, 40, 70, 100, 20)]
    alone = [prompt_embeds.chunks(base, [prompt]) for prompt in prompts]
    assert prompt_embeds.chunks_of(base, prompts) == alone and len(set(alone)) == 3
    texts = [f"{prompt} {'b ' * 40}the end" for prompt in prompts]
    lost = {prompt: end for text in texts for prompt, end in prompt_embeds.cut(base, [text]).items()}
    assert prompt_embeds.cut(base, texts) == lost and lost


@pytest.mark.parametrize(
    ("family", "clip_skip", "words"),
    [("sd", 4, "1 to 3"), ("sdxl", 1, "2 to 3"), ("sdxl", 4, "2 to 3"), ("sd3", 2, "leave it out")],
)
def test_a_layer_that_a_base_does_not_have_is_refused(loaded, family, clip_skip, words, refused):
    with refused(f"--clip_skip {clip_skip}", words):
        prompt_embeds.require_clip_skip(loaded[family][0], clip_skip)
    prompt_embeds.require_clip_skip(loaded[family][0], 0)


def test_the_words_beyond_the_last_chunk_are_named(loaded):
    base: Base = bases.resolve(str(loaded["sd"][0].folder))
    assert prompt_embeds.cut(base, ["a" * 88 + " bc def"]) == {"a" * 88 + " bc def": "def"}
    assert prompt_embeds.cut(base, ["a" * 90]) == {}
