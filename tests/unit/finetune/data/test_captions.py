"""Captions with contexts: measured, of a model or the photos' own, kept in a file that is used again."""

import json
from pathlib import Path

import pictures
import pipelines
import pytest
import torch
from PIL import Image
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
)

from finetune import command
from finetune.config import TrainLora
from finetune.data import captioner, captions
from orchard.adapters import adapter
from orchard.adapters.contexts import MOST, Caption, bank, without_class
from orchard.bases import bases
from orchard.datasets import sources
from orchard.images.images import TRAIN

RED, BLUE, GREEN, WHITE = (200, 20, 20), (40, 60, 200), (60, 160, 40), (255, 255, 255)
DISCS = {
    "0": pictures.disc(WHITE, (40, 40, 36, RED)),
    "1": pictures.disc(BLUE, (40, 40, 12, GREEN)),
    "2": pictures.disc(WHITE, (20, 20, 14, RED), (60, 60, 14, RED)),
}
SAID = {
    "0": "a photo of red apple, white background, single, close",
    "1": "a photo of green apple, blue background, single, far",
    "2": "a photo of red apple, white background, several, far",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return pipelines.tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture
def photos(tmp_path) -> Path:
    files = {f"train/apple/{name}.png": pictures.encoded(Image.fromarray(one)) for name, one in DISCS.items()}
    return pictures.write(tmp_path / "photos", files | {"test/apple/9.png": None})


def config(photos: Path, **options) -> TrainLora:
    usual = {"captions": "context", "output": photos.parent / "out"}
    return TrainLora(data=str(photos), **usual | options)


def texts(config: TrainLora) -> dict[str, str | None]:
    """What each photo is trained with, by the name of its file."""
    found, _ = captions.choose(config, sources.load(config.data).of(TRAIN))
    return {Path(photo.path).stem: photo.text for photo in found.photos}


def train(folder: Path, config: TrainLora, **options) -> adapter.Adapter:
    given = {
        "base": str(folder),
        "steps": 1,
        "batch_size": 2,
        "rank": 1,
        "targets": ("to_q",),
        "sheets": False,
    }
    words = {**vars(config), **given, "cache": "none", "save_every": 0, "precision": "fp32", **options}
    command.train(TrainLora(**words))
    return adapter.read(config.output / "apple.safetensors")


def rows(config: TrainLora) -> list[dict]:
    return [json.loads(line) for line in (config.output / captions.NAME).read_text().splitlines()]


def write_rows(config: TrainLora, lines: list[dict]) -> None:
    config.output.mkdir(exist_ok=True)
    (config.output / captions.NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_caption_is_the_class_prompt_and_what_was_drawn(photos):
    assert texts(config(photos)) == SAID
    assert (
        texts(config(photos, prompt="{label} by me"))["1"]
        == "green apple by me, blue background, single, far"
    )


def test_a_long_photo_that_is_padded_says_that_it_has_bars_unless_they_are_white_on_white(photos, tmp_path):
    for name, ground in (("3", WHITE), ("4", BLUE)):
        picture = Image.fromarray(pictures.disc(ground, (40, 40, 30, RED))).crop((0, 5, 80, 70))
        picture.save(photos / "train" / "apple" / f"{name}.png")
    padded, cropped = (texts(config(photos, fit=fit)) for fit in ("pad", "crop"))
    assert padded["3"] == cropped["3"] and "letterboxed" not in padded["3"]
    assert padded["4"] == f"{cropped['4']}, letterboxed"


def test_without_contexts_photos_keep_their_own_captions_or_take_the_prompt(photos):
    (photos / "train" / "apple" / "1.txt").write_text("Two apples, on grass")
    assert texts(config(photos, captions="own")) == {"0": None, "1": "Two apples, on grass", "2": None}
    assert texts(config(photos, captions="none")) == dict.fromkeys(SAID)
    assert texts(config(photos)) == SAID | {"1": "a photo of apple, Two, on grass"}


def test_captions_are_kept_with_the_adapter_and_its_file_has_their_contexts(folder, photos):
    found = train(folder, config(photos))
    assert [row["file_name"] for row in rows(config(photos))] == [f"train/apple/{name}.png" for name in SAID]
    assert found.provenance.contexts == {
        "apple": {
            "contexts": {one.split(", ", 1)[1]: 1 for one in sorted(SAID.values(), key=_context)},
            "colours": {"red": 2, "green": 1},
        }
    }


def _context(text: str) -> str:
    return text.split(", ", 1)[1]


def test_edited_captions_are_used_and_an_adapter_of_others_is_not_finished(folder, photos, capsys):
    train(folder, config(photos))
    lines = rows(config(photos))
    write_rows(config(photos), [lines[0] | {"context": "on a red table"}, {"sha256": "0", "context": "x"}])
    assert texts(config(photos))["0"] == "a photo of red apple, on a red table"
    capsys.readouterr()
    found = train(folder, config(photos))
    said = capsys.readouterr().out
    assert "1 from" in said and "2 measured" in said and captions.NAME in said
    assert "on a red table" in found.provenance.contexts["apple"]["contexts"]
    assert [row["context"] for row in rows(config(photos))[:2]] == ["on a red table", "x"]
    train(folder, config(photos), resume="latest")
    assert "nothing: all adapters are finished" in capsys.readouterr().out


def test_a_plan_alone_writes_nothing(folder, photos):
    command.train(config(photos, base=str(folder), dry_run=True, cache="none"))
    assert not config(photos).output.exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", ("line 2",)),
        ('{"sha256": "0"}', ("line 2", "no context")),
        ('{"sha256": "0", "context": "a {label}"}', ("line 2", "no braces")),
        ('{"sha256": "0", "context": "a", "colour": 3}', ("line 2", "colour is 3")),
        ('{"sha256": "1", "context": "other"}', ("line 2", "an earlier line")),
    ],
)
def test_a_file_of_captions_that_makes_no_sense_is_one_line(photos, refused, line, words):
    config(photos).output.mkdir()
    (config(photos).output / captions.NAME).write_text(f'{{"sha256": "1", "context": "a"}}\n{line}\n')
    with refused(captions.NAME, *words):
        texts(config(photos))


@pytest.mark.parametrize(
    ("text", "label", "left"),
    [
        ("A photo of two Apples, on a table.", "apple", "two, on a table"),
        ("a bowl of apples beside a pineapple", "apple", "a bowl beside a pineapple"),
        ("some cherries in a bowl", "cherry", "in a bowl"),
        ("a No Entry sign at night", "no_entry", "sign at night"),
        ("an apple", "apple", ""),
        ("{{ apple }} \x07", "apple", ""),
        (f"apple {'long ' * 60}", "apple", " ".join(["long"] * 40)),
    ],
)
def test_the_class_is_taken_out_of_a_sentence(text, label, left):
    assert without_class(text, label) == left


def test_a_bank_keeps_the_most_common_contexts():
    said = [Caption(context=f"{number}") for number in range(MOST + 9)] + [Caption(context="300")] * 2
    found = bank(said)["contexts"]
    assert len(found) == MOST and next(iter(found.items())) == ("300", 2)


WORDS = ("apple", "apples", "an", "on", "grass", "red")


@pytest.fixture(scope="module")
def blip(tmp_path_factory) -> Path:
    """A captioning model with small random weights, whose words are of one class and a few others."""
    folder = tmp_path_factory.mktemp("blip")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "apple",
        "apples",
        "an",
        "on",
        "grass",
        "red",
        "[DEC]",
    ]
    (folder / "vocab.txt").write_text("\n".join(words))
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    # As in the released models, the first token is none of the tokenizer's.
    ends = {"bos_token_id": len(words), "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    model = BlipForConditionalGeneration(
        BlipConfig(
            text_config={**sizes, "encoder_hidden_size": 16, "vocab_size": len(words) + 1, **ends},
            vision_config={**sizes, "image_size": 16, "patch_size": 8},
            projection_dim=16,
        )
    )
    model.save_pretrained(folder)
    processor = BlipImageProcessor(size={"height": 16, "width": 16})
    BlipProcessor(processor, BertTokenizerFast(str(folder / "vocab.txt"))).save_pretrained(folder)
    return folder


def test_a_model_says_the_contexts_once_and_the_class_is_no_part_of_them(folder, photos, blip, monkeypatch):
    one = config(photos, captioner=str(blip))
    (photo,) = [p for p in sources.load(str(photos)).of(TRAIN).photos if p.path.endswith("0.png")]
    (said,) = captioner.describe(blip, [photo], torch.device("cpu"), show=False)
    assert set(said.split()) <= set(WORDS)
    found = train(folder, one)
    contexts = {row["file_name"]: row["context"] for row in rows(one)}
    assert contexts["train/apple/0.png"] == without_class(said, "apple")
    assert set(found.provenance.contexts["apple"]["contexts"]) == set(contexts.values())
    monkeypatch.setattr(captioner, "describe", None)
    assert train(folder, one).provenance.contexts == found.provenance.contexts


def test_what_a_model_has_said_is_kept_when_it_is_stopped(photos, tmp_path, monkeypatch):
    def stopped(*_, **__):
        yield "an apple on grass"
        raise KeyboardInterrupt

    monkeypatch.setattr(captioner, "describe", stopped)
    one = config(photos)
    found, said = captions.choose(one, sources.load(one.data).of(TRAIN), tmp_path)
    one.output.mkdir()
    with pytest.raises(KeyboardInterrupt):
        captions.save(one.output / captions.NAME, said, found.photos, torch.device("cpu"), show=False)
    assert [(row["file_name"], row["context"]) for row in rows(one)] == [("train/apple/0.png", "on grass")]


def test_a_captioner_that_is_not_to_be_had_is_refused_before_any_weight_is_loaded(
    folder, photos, tmp_path, refused, monkeypatch
):
    monkeypatch.setattr(bases, "load", None)
    monkeypatch.setattr(captioner, "describe", None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def given(name: object) -> None:
        command.train(config(photos, base=str(folder), captioner=str(name)))

    with refused("--captioner some/model", "not to be had from the Hub", "leave it out"):
        given("some/model")
    with refused(f"--captioner {tmp_path}", "config"):
        given(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with refused("a bert", "does not caption images"):
        given(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "blip"}')
    with refused("no safetensors"):
        given(tmp_path)
    with refused("--captioner x", "--captions context"):
        TrainLora(captioner="x").require_valid()
