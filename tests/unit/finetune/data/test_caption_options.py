"""Trigger, caption dropout, balance of classes, long captions and another layer of CLIP, in training."""

from collections import Counter
from pathlib import Path

import encoded_photos
import pictures
import pipelines
import pytest
import torch

from finetune import command
from finetune.config import TrainLora
from finetune.step.batches import EncodedDataset, balanced_rows, draw
from generate.command import generate
from generate.config import Generate
from orchard import shards
from orchard.adapters import adapter

LONG = "a ripe red apple on a table of old oak wood"
"""More than the 30 letters that the tiny tokenizer reads at once."""
SMALL = {"steps": 1, "batch_size": 2, "sheets": False, "cache": "none", "precision": "fp32", "rank": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return pipelines.tiny_sdxl(tmp_path_factory.mktemp("bases") / "sdxl")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two apples, one with a long caption."""
    folder = pictures.write(
        tmp_path / "photos", ["test/apple/0.png", "train/apple/0.png", "train/apple/1.png"]
    )
    (folder / "train" / "apple" / "0.txt").write_text(LONG)
    return folder


def train(base: Path, photos: Path, **options) -> adapter.Adapter:
    output = photos.parent / "out"
    command.train(TrainLora(data=str(photos), base=str(base), output=output, **SMALL, **options))
    return adapter.read(output / "apple.safetensors")


def marked(count: int) -> EncodedDataset:
    """Images that share a prompt of ones; the empty one is nought."""
    return encoded_photos.dataset(
        mean=[torch.zeros(2, 4, 2, 2)] * count,
        std=[torch.zeros(2, 4, 2, 2)] * count,
        prompts={"prompt_embeds": torch.tensor([0.0, 1.0]).reshape(2, 1, 1)},
        prompt_of=torch.ones(count, dtype=torch.long),
        empty=0,
    )


def test_as_many_captions_are_dropped_as_asked_for_and_nothing_else_changes():
    options = {"batch_size": 1000, "seed": 1, "flip": True}
    whole, some = (draw(marked(50), 3, caption_dropout=share, **options) for share in (0.0, 0.3))
    assert whole.prompts["prompt_embeds"].min() == 1
    # Three standard deviations of a share of 0.3 among 1000 are 0.043.
    assert 1 - some.prompts["prompt_embeds"].mean().item() == pytest.approx(0.3, abs=0.043)
    for name in ("latents", "noise", "times"):
        assert torch.equal(getattr(whole, name), getattr(some, name))
    halves = [draw(marked(50), 3, caption_dropout=0.3, part=k, parts=2, **options) for k in range(2)]
    for k, half in enumerate(halves):
        assert torch.equal(half.prompts["prompt_embeds"], some.prompts["prompt_embeds"][k::2])


def test_without_dropout_a_batch_is_what_it_was():
    plain = draw(encoded_photos.cache(), 2, batch_size=4, seed=0, flip=True)
    dropped = draw(encoded_photos.cache(), 2, batch_size=4, seed=0, flip=True, caption_dropout=0.9)
    assert all(torch.equal(plain.prompts[name], dropped.prompts[name]) for name in plain.prompts)


def test_balance_shows_each_class_equally_often_and_each_of_its_images_once_an_epoch():
    classes = [[0, 1, 2, 3, 4, 5], [6, 7], [8]]
    rows = [row for step in range(9) for row in balanced_rows(step, classes, 4, seed=5)]
    times = Counter(rows)
    assert [sum(times[row] for row in images) for images in classes] == [12, 12, 12]
    assert [times[row] for row in range(9)] == [2] * 6 + [6] * 2 + [12]
    assert rows[4:8] == balanced_rows(1, classes, 4, seed=5)
    assert rows != [row for step in range(9) for row in balanced_rows(step, classes, 4, seed=6)]


def test_a_trigger_stands_before_every_caption_and_in_the_header_that_generate_follows(base, photos, capsys):
    found = train(base, photos, trigger="zxq")
    assert found.provenance.prompt == "zxq, a photo of {label}"
    told = capsys.readouterr().out
    assert "captions  1 of 2 photos have their own" in told
    assert "prompts   2 of 2 are longer than CLIP reads at once" not in told
    assert "prompts   1 of 2 are longer than CLIP reads at once" in told


def test_an_adapter_with_everything_is_trained_and_generate_reads_as_it_did(base, photos, tmp_path):
    options = {"trigger": "zxq", "caption_dropout": 0.5, "clip_skip": 2}
    for trains_text in (False, True):
        found = train(base, photos, train_text_encoder=trains_text, **options)
        assert {name: found.provenance.options[name] for name in options} == options
    shards_of = tmp_path / "shards"
    wanted = {"count": 1, "steps": 1, "precision": "fp32", "screens": ("none",), "safety_checker": False}
    generate(Generate(lora=(str(found.path),), data=str(photos), output=str(shards_of), **wanted))
    arguments = shards.existing(shards_of)[0].header.arguments
    assert arguments["clip_skip"] == 2 and "chunks" not in arguments
    long = {**wanted, "prompt": ("{label} " + "x" * 40,), "output": str(tmp_path / "long")}
    generate(Generate(lora=(str(found.path),), data=str(photos), **long))
    assert shards.existing(tmp_path / "long")[0].header.arguments["chunks"] == 2


REFUSED = [
    ({"trigger": "{{ foo }}"}, ("--trigger '{{ foo }}'", "plain words")),
    ({"trigger": " "}, ("--trigger ' '", "plain words")),
    ({"balance": True}, ("--balance", "--joint")),
    ({"balance": True, "joint": True, "buckets": True}, ("--balance", "--buckets")),
    ({"caption_dropout": 1.0}, ("--caption_dropout 1", "less than 1")),
    ({"clip_skip": -1}, ("--clip_skip -1",)),
]


@pytest.mark.parametrize(("options", "words"), REFUSED)
def test_options_that_mean_nothing_are_refused(options, words, refused):
    with refused(*words):
        TrainLora(**options).require_valid()
