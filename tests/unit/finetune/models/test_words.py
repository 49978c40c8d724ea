"""Textual inversion and pivotal tuning: from photos to files, in stock diffusers and in generate."""

import json
from pathlib import Path

import numpy as np
import pipelines
import pytest
import torch
from safetensors.torch import load_file, save_file
from shell import GENERATE, TRAIN, command, refusal

from finetune.command import train
from finetune.config import TrainLora
from finetune.models import words
from finetune.models.families import family_of
from generate.command import generate
from generate.config import Generate
from orchard import shards
from orchard.adapters import adapter, attaching
from orchard.bases import embeddings as known_words
from orchard.bases import prompt_embeds
from orchard.images.images import ImageSet, Photo

SMALL = {"data": "demo", "precision": "fp32", "batch_size": 2, "learning_rate": 0.1, "sheets": False}


def trained(base: Path, output: Path, **options) -> adapter.Adapter:
    """The last class's file."""
    config = TrainLora(
        base=str(base), output=output, **{"classes": ("apple",), "steps": 2, **SMALL, **options}
    )
    train(config)
    return adapter.read(output / f"{'joint' if config.joint else config.classes[-1]}.safetensors")


def picture(pipe, prompt: str) -> np.ndarray:
    options = {"num_inference_steps": 2, "output_type": "np", "height": 32, "width": 32}
    with torch.no_grad():
        generator = torch.Generator().manual_seed(5)
        return pipe(prompt, generator=generator, guidance_scale=2.0, **options).images[0]


def load_words(pipe, path: Path, word: str) -> None:
    """As diffusers' documentation does it."""
    if not hasattr(pipe, "text_encoder_2"):
        pipe.load_textual_inversion(path)
        return
    vectors = load_file(path)
    pipe.load_textual_inversion(
        vectors["clip_l"], token=word, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer
    )
    pipe.load_textual_inversion(
        vectors["clip_g"], token=word, text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2
    )


@pytest.mark.parametrize("name", ["sd", "sdxl"])
@pytest.mark.parametrize("pivotal", [False, True])
def test_stock_diffusers_and_generate_make_the_same_of_learned_words(folders, tmp_path, name, pivotal):
    options = {"method": "lora", "rank": 2} if pivotal else {"method": "textual_inversion"}
    one = trained(folders[name], tmp_path, num_vectors=3, **options)
    prompt = "a photo of <apple>"
    _, ours = pipelines.load(folders[name])
    plain = picture(ours, prompt)
    attaching.attach(ours, one)
    mine = picture(ours, prompt)
    assert np.abs(mine - plain).max() > 1e-4
    attaching.learn_words(ours, [])
    ours.unload_lora_weights()
    assert np.abs(picture(ours, prompt) - plain).max() == 0

    _, stock = pipelines.load(folders[name])
    load_words(stock, tmp_path / "embeddings" / "apple.safetensors" if pivotal else one.path, "<apple>")
    if pivotal:
        stock.load_lora_weights(tmp_path, weight_name="apple.safetensors")
    assert np.abs(picture(stock, prompt) - mine).max() < 1e-4


def test_what_is_trained_is_what_the_prompt_gives_in_stock_diffusers(folders):
    """The training encodes token ids in the graph; stock pipelines encode words."""
    for name in ("sd", "sdxl"):
        base, pipe = pipelines.load(folders[name])
        family = family_of(pipe, base, trains_text=True)
        object.__setattr__(family, "words", {"<apple>": 2})
        ids = family.token_ids(["a photo of <apple>"])
        part = words.Words(of={"apple": "<apple>"}, vectors=2, alone=True)
        for parameters in part.put_in(family).values():
            torch.nn.init.normal_(parameters[0], generator=torch.Generator().manual_seed(0))
        found = family.embed_tokens(ids)
        states = pipe.encode_prompt(
            "a photo of <apple>", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        assert torch.allclose(found["prompt_embeds"], states[0], atol=1e-5)
        if name == "sdxl":
            assert torch.allclose(found["pooled_prompt_embeds"], states[2], atol=1e-5)
        part.take_out(family)
        assert "<apple>" not in pipe.tokenizer.get_vocab()


def test_a_word_starts_from_the_class_name(folders):
    _, pipe = pipelines.load(folders["sd"])
    ids = pipe.tokenizer("ab", add_special_tokens=False).input_ids
    rows = pipe.text_encoder.get_input_embeddings().weight[ids]
    found = {n: known_words.start(pipe, "ab", n)["text_encoder"] for n in (1, 2, 3)}
    assert torch.allclose(found[1], rows.mean(0, keepdim=True))
    assert torch.equal(found[2], rows)
    assert torch.equal(found[3], rows[[0, 1, 0]])


def test_a_strangers_bundle_is_refused(folders, tmp_path, refused):
    one = trained(folders["sd"], tmp_path, rank=2)
    tensors = load_file(one.path)
    save_file({**tensors, "bundle_emb.x.string_to_param.*": torch.ones(1, 16)}, tmp_path / "b.safetensors")
    with refused("bundle_emb.x", "save the LoRA without them"):
        adapter.read(tmp_path / "b.safetensors")


def test_only_the_words_learn(folders, tmp_path):
    base, pipe = pipelines.load(folders["sd"])
    family = family_of(pipe, base, trains_text=True)
    method = words.Words(of={"apple": "<apple>"}, vectors=2, alone=True)
    for model in family.models.values():
        model.requires_grad_(False)
    method.put_in(family)
    learning = [n for model in family.models.values() for n, p in model.named_parameters() if p.requires_grad]
    assert [name.rpartition("token_embedding.")[2] for name in learning] == ["learned.weight"]


def test_the_files_are_as_the_other_tools_read_them(folders, tmp_path):
    """WebUI takes one tensor under any name, or clip_l and clip_g; a bundle is told by its keys."""
    for name, keys in (("sd", {"<apple>"}), ("sdxl", {"clip_l", "clip_g"})):
        one = trained(folders[name], tmp_path / name, method="textual_inversion")
        tensors = load_file(one.path)
        assert set(tensors) == keys
        assert all(value.dtype == torch.float32 and value.shape[0] == 1 for value in tensors.values())
    one = trained(folders["sdxl"], tmp_path / "both", rank=2, num_vectors=2, export="kohya")
    bundle = load_file(tmp_path / "both" / "kohya" / "apple.safetensors")
    vectors = load_file(tmp_path / "both" / "embeddings" / "apple.safetensors")
    for key, value in vectors.items():
        assert torch.equal(bundle[f"bundle_emb.<apple>.{key}"], value)
    assert one.provenance.embeddings["apple"]["word"] == "<apple>"
    pictures = []
    for path in (one.path, tmp_path / "both" / "kohya" / "apple.safetensors"):
        _, pipe = pipelines.load(folders["sdxl"])
        attaching.attach(pipe, adapter.read(path))
        pictures.append(picture(pipe, "a photo of <apple>"))
    assert np.abs(pictures[0] - pictures[1]).max() < 1e-5
    assert (
        adapter.shareable(tmp_path / "both/embeddings/apple.safetensors", tmp_path).parent.name
        == "embeddings"
    )


def test_words_resume_exactly_and_go_into_shards(base, tmp_path):
    shared = [
        TRAIN[1],
        "--data",
        "demo",
        "--base",
        base,
        "--classes",
        "apple",
        "--precision",
        "fp32",
        "--no_sheets",
    ]
    shared += ["--method", "textual_inversion", "--num_vectors", 2, "--learning_rate", 0.1, "--batch_size", 2]
    shared += ["--steps", 4, "--save_every", 2, "--keep", 0, "--output", "adapters"]
    said = command(tmp_path, TRAIN[0], *shared)
    assert (
        "words of 2 vectors" in said and "a photo of <apple>" in (tmp_path / "adapters/README.md").read_text()
    )
    path = tmp_path / "adapters" / "apple.safetensors"
    straight = load_file(path)
    path.unlink()
    assert "resuming  apple after step 2" in command(tmp_path, TRAIN[0], *shared, "--resume", "latest")
    assert torch.equal(load_file(path)["<apple>"], straight["<apple>"])
    options = ["--data", "demo", "--count", 1, "--steps", 2, "--scheduler", "base", "--precision", "fp32"]
    command(tmp_path, *GENERATE, "--lora", "apple.safetensors", *options)
    (row,) = shards.rows_of(shards.path_of(tmp_path / "shards", "apple", 0))
    assert row["prompt"] == "a photo of <apple>"
    manifest = shards.read_manifest(tmp_path / "shards")
    assert manifest["trained_on"] == adapter.read(path).provenance.trained_on
    line = refusal(tmp_path, *GENERATE, "--lora", "apple.safetensors:0.5", *options, "--output", "other")
    assert "no weight" in line


def test_an_adapter_without_its_words_is_refused(base, tmp_path, refused):
    one = trained(base, tmp_path, rank=2, num_vectors=1)
    file = tmp_path / "embeddings" / "apple.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-4] + b"\0\0\0\1")
    with refused("<apple>", "embeddings/apple.safetensors", "put the file"):
        adapter.read(one.path)
    file.unlink()
    with refused("<apple>", "embeddings/apple.safetensors"):
        adapter.read(one.path)


def test_pivotal_tuning_of_all_classes_at_once_and_contrast_between_them(base, tmp_path):
    one = trained(base, tmp_path / "a", classes=("apple", "banana"), joint=True, rank=2, num_vectors=1)
    assert {label: said["word"] for label, said in one.provenance.embeddings.items()} == {
        "apple": "<apple>",
        "banana": "<banana>",
    }
    small = {"count": 1, "steps": 2, "scheduler": "base", "data": "demo", "precision": "fp32"}
    generate(Generate(lora=(str(one.path),), contrast=0.5, output=tmp_path / "s", **small))
    rows = [shards.rows_of(shards.path_of(tmp_path / "s", name, 0))[0] for name in ("apple", "banana")]
    assert [row["prompt"] for row in rows] == ["a photo of <apple>", "a photo of <banana>"]
    assert rows[1]["contrast_prompt"] in ("a photo of <apple>", "a photo of orange")


def test_captions_name_the_word_where_they_named_the_class(refused):
    def photo(text: str | None) -> Photo:
        return Photo(path="a.png", label="red apple", split="train", sha256="0", read=bytes, text=text)

    config = TrainLora(method="textual_inversion", prompt="an image of {label}")
    of = ImageSet(name="x", classes=("red apple",), photos=(photo("two Red-Apple on a table"), photo(None)))
    found = [one.text for one in words.in_prompts(config, of, {}).photos]
    assert found == ["two <red_apple> on a table", "an image of <red_apple>"]
    with refused("a.png", "red apple", "--captions none"):
        words.in_prompts(config, ImageSet(name="x", classes=("red apple",), photos=(photo("a pear"),)), {})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "textual_inversion", "joint": True}, ("--joint", "each class")),
        ({"method": "textual_inversion", "rank": 4}, ("--rank", "leave it out")),
        (
            {"method": "textual_inversion", "train_text_encoder": True},
            ("--train_text_encoder", "--num_vectors"),
        ),
        ({"method": "full", "num_vectors": 1}, ("--num_vectors 1", "--method full")),
        ({"text_encoder_learning_rate": 0.1}, ("0.1", "--train_text_encoder or --num_vectors")),
    ],
)
def test_options_that_contradict_each_other_are_refused(refused, options, said):
    with refused(*said):
        TrainLora(**options).require_valid()


def test_sd_3_is_refused_before_anything_is_read(folders, tmp_path, refused):
    with refused("--method textual_inversion", "StableDiffusion3Pipeline", "LoRA"):
        trained(folders["sd3"], tmp_path, method="textual_inversion")
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == "[]"


def test_every_vector_of_a_word_counts_where_prompts_are_measured(folders, tmp_path, refused):
    base, pipe = pipelines.load(folders["sd"])
    room = pipe.tokenizer.model_max_length - 2
    said = ["a photo of <apple>"]
    assert prompt_embeds.chunks(base, said, {"<apple>": 1}) == 1
    assert prompt_embeds.chunks(base, said, {"<apple>": room}) == 2
    assert not prompt_embeds.cut(base, said, {"<apple>": room})
    assert "<apple>_" in prompt_embeds.cut(base, said, {"<apple>": 3 * room})[said[0]]
    with refused(f"--num_vectors {3 * room}", "give fewer"):
        words.require_supported(TrainLora(num_vectors=3 * room), base, ["apple"])
