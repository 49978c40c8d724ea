"""All weights in training: folders of whole pipelines, what they have seen, and what reads them."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from shell import GENERATE, TRAIN, command, refusal

from finetune.command import train
from finetune.config import TrainLora
from finetune.models import full
from generate.command import generate
from generate.config import Generate
from orchard import shards
from orchard.adapters import adapter, provenance
from orchard.bases import bases
from orchard.errors import UserError

SMALL = {"data": "demo", "precision": "fp32", "batch_size": 2, "steps": 2, "learning_rate": 1e-3}
SAMPLED = {"count": 1, "steps": 2, "scheduler": "base", "data": "demo", "precision": "fp32"}
DENOISER = "unet/diffusion_pytorch_model.safetensors"


def trained(base: Path, output: Path, **options) -> Path:
    """The last class's folder."""
    usual = {"classes": ("apple",), "sheets": False, "method": "full"}
    config = TrainLora(base=str(base), output=output, **{**usual, **SMALL, **options})
    train(config)
    return output / ("joint" if config.joint else config.classes[-1])


def same(one: Path, other: Path) -> bool:
    a, b = load_file(one / DENOISER), load_file(other / DENOISER)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", ["sdxl", "sd3-t5"])
def test_every_weight_learns_and_stock_diffusers_loads_the_folder(folders, tmp_path, name):
    folder = trained(folders[name], tmp_path, train_text_encoder=True)
    stock = DiffusionPipeline.from_pretrained(folder, use_safetensors=True)
    before = DiffusionPipeline.from_pretrained(folders[name])
    for part in ("transformer" if name == "sd3-t5" else "unet", "text_encoder", "text_encoder_2"):
        pairs = zip(getattr(stock, part).named_parameters(), getattr(before, part).parameters(), strict=True)
        still = [key for (key, one), other in pairs if torch.equal(one, other)]
        # What nothing is computed from: SDXL takes the states before the last layer of its first encoder.
        assert all("layers.1." in key or "final_layer_norm" in key for key in still), still
        assert not still or (name, part) == ("sdxl", "text_encoder")
    for part in ("vae", "text_encoder_3"):
        if getattr(before, part, None) is not None:
            pairs = zip(getattr(stock, part).parameters(), getattr(before, part).parameters(), strict=True)
            assert all(torch.equal(one, other) for one, other in pairs)
    configs = [*folder.glob("*.json"), *folder.glob("*/*.json")]
    named = [path.name for path in configs if str(folders[name]) in path.read_text()]
    assert len(configs) > 4 and named == ["orchard.json"]  # which says that to whoever goes on here
    origin = provenance.of_folder(folder)
    assert (origin.method, origin.rank, origin.targets) == ("full", 0, [])
    assert origin.text_encoders == ["text_encoder", "text_encoder_2"]


def test_a_folder_per_class_goes_from_photos_to_one_set_that_names_what_each_has_seen(base, tmp_path):
    shared = [TRAIN[1], "--data", "demo", "--base", base, "--classes", "apple", "banana", "--method", "full"]
    shared += ["--precision", "fp32", "--batch_size", 2, "--steps", 4, "--save_every", 2, "--keep", 0]
    shared += ["--ema_decay", 0.5, "--learning_rate", 1e-3]
    said = command(tmp_path, TRAIN[0], *shared)
    assert "all weights of the denoiser" in said and "ruins whole models" in said and "memory    " in said
    assert "generate --lora apple banana" in said
    adapters = tmp_path / "adapters"
    assert {path.name for path in adapters.iterdir() if not path.name.startswith(".")} == {
        *("apple", "banana", "apple-loss.png", "apple-samples.png", "banana-loss.png", "banana-samples.png"),
        *("checkpoints", "logs", "README.md"),
    }
    assert 'from_pretrained("apple")' in (adapters / "README.md").read_text()
    shutil.copytree(adapters / "banana", tmp_path / "straight")
    shutil.rmtree(adapters / "banana")
    said = command(tmp_path, TRAIN[0], *shared, "--resume", "latest")
    assert "finished  apple" in said and "resuming  banana after step 2" in said
    assert same(adapters / "banana", tmp_path / "straight")

    options = ["--data", "demo", "--count", 1, "--steps", 2, "--scheduler", "base", "--precision", "fp32"]
    said = command(tmp_path, *GENERATE, "--lora", "apple", "banana", *options)
    assert "none (tuned base)" in said
    for shard in shards.existing(tmp_path / "shards"):
        seen = shards.hashes(tmp_path / "shards", shard.header.trained_on)
        assert seen == provenance.of_folder(adapters / shard.header.label).trained_on
    both = {one for name in ("apple", "banana") for one in provenance.of_folder(adapters / name).trained_on}
    manifest = shards.read_manifest(tmp_path / "shards")
    assert set(manifest["trained_on"]) == both and not manifest["unknown_ledger"]
    line = refusal(tmp_path, *GENERATE, "--lora", "apple", "banana", "--fuse", *options, "--output", "o")
    assert "--fuse" in line and "whole pipeline" in line
    line = refusal(tmp_path, *GENERATE, "--lora", "apple:0.5", *options, "--output", "o")
    assert "no weight" in line
    line = refusal(tmp_path, *GENERATE, "--lora", "apple", "--base", base, *options, "--output", "o")
    assert "leave --base out" in line


def test_one_folder_for_all_classes_is_a_base_and_its_ledger_goes_on_with_adapters(base, tmp_path):
    folder = trained(base, tmp_path / "a", classes=("apple", "banana"), joint=True, clip_skip=1)
    generate(Generate(base=str(folder), output=tmp_path / "s", **SAMPLED))
    manifest = shards.read_manifest(tmp_path / "s")
    assert manifest["arguments"]["apple"]["clip_skip"] == 1
    assert sorted(manifest["rows"]) == ["apple", "banana"]
    seen = provenance.of_folder(folder).trained_on
    assert manifest["trained_on"] == seen
    train(TrainLora(base=str(folder), output=tmp_path / "b", classes=("orange",), sheets=False, **SMALL))
    one = adapter.read(tmp_path / "b" / "orange.safetensors")
    assert set(seen) < set(one.provenance.trained_on)
    generate(Generate(lora=(str(one.path),), output=tmp_path / "t", **SAMPLED))
    assert sorted(shards.read_manifest(tmp_path / "t")["rows"]) == ["orange"]
    assert "clip_skip" not in shards.read_manifest(tmp_path / "t")["arguments"]["orange"]
    assert shards.read_manifest(tmp_path / "t")["trained_on"] == one.provenance.trained_on


def test_a_class_trained_second_is_the_one_trained_alone_whatever_saves_memory(base, tmp_path):
    second = trained(base, tmp_path / "both", classes=("apple", "banana"))
    alone = trained(base, tmp_path / "alone", classes=("banana",), gradient_checkpointing=True)
    assert same(second, alone)
    assert not same(second, tmp_path / "both" / "apple")


def test_half_precision_trains_float32_weights_and_writes_halves(base, tmp_path):
    folder = trained(base, tmp_path, precision="bf16", sheets=True, preview_every=1)
    assert {value.dtype for value in load_file(folder / DENOISER).values()} == {torch.bfloat16}
    assert (tmp_path / "apple-samples.png").is_file()


def test_large_weights_are_written_in_several_files(base, tmp_path, monkeypatch):
    monkeypatch.setattr(full, "LARGEST_FILE", "100KB")
    folder = trained(base, tmp_path)
    assert len(list((folder / "unet").glob("*-of-*.safetensors"))) > 1
    found = bases.resolve(str(folder))
    bases.load(found, torch.float32, torch.device("cpu"))


def test_nothing_half_written_counts_as_finished(base, tmp_path, monkeypatch):
    import diffusers

    whole = diffusers.StableDiffusionPipeline.save_pretrained

    def broken(pipe, folder, **options):
        whole(pipe, folder, **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "save_pretrained", broken)
    with pytest.raises(UserError, match="apple: cannot be written"):
        trained(base, tmp_path)
    assert not list(tmp_path.glob("*apple*")) and not adapter.begun(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"targets": ("to_q",)}, ("--targets", "--method full")),
        ({"export": "kohya"}, ("--export", "--method full")),
        ({"push_to_hub": "a/b"}, ("--push_to_hub", "hf upload")),
    ],
)
def test_options_of_adapters_are_refused(refused, options, said):
    with refused(*said):
        TrainLora(method="full", **options).require_valid()
