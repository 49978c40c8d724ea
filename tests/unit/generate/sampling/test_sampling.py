"""Adapters with weights, LCM, image guidance, varied prompts: what gets into the rows, what is refused."""

import json
from pathlib import Path

import loras as random_loras
import numpy as np
import pictures
import pipelines
import pytest
import torch

from generate.command import generate
from generate.config import Generate
from generate.planning.jobs import jobs
from generate.sampling import loras
from orchard import shards
from orchard.adapters import adapter, attaching
from orchard.bases import bases, prompt_embeds
from orchard.datasets import sources
from orchard.images.images import TEST, decode, square

CLASSES = ["apple", "pear"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return pipelines.tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def files(tmp_path_factory, folder) -> dict[str, str]:
    return random_loras.trained(tmp_path_factory.mktemp("adapters"), folder, CLASSES)


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> str:
    names = [f"{label}/{i}.png" for label in CLASSES for i in range(5)]
    return str(pictures.write(tmp_path_factory.mktemp("real"), names))


def rows(output: Path, label: str = "apple", **options) -> list[dict]:
    """The rows of the first shard of a class that the command has just written."""
    settings = {"count": 2, "steps": 2, "batch_size": 2, "precision": "fp32"} | options
    generate(Generate(output=output, **settings))
    return shards.rows_of(shards.path_of(output, label, 0))


def pixels(row: dict) -> np.ndarray:
    return np.asarray(decode(row["image"]["bytes"], "row"), dtype=int)


def stock(folder: Path, *names: str, weights=None, scheduler="DPMSolverMultistepScheduler"):
    """The stock pipeline with stock-loaded adapters."""
    import diffusers

    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    for name in names:
        pipe.load_lora_weights(name, adapter_name=Path(name).stem)
    if weights:
        pipe.set_adapters([Path(name).stem for name in names], weights)
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    return pipe


def called(pipe, row: dict, **options) -> np.ndarray:
    generator = torch.Generator().manual_seed(row["seed"])
    usual = {"num_inference_steps": 2, "guidance_scale": 2.0}
    return np.asarray(pipe(row["prompt"], generator=generator, **usual | options).images[0], dtype=int)


def test_fused_adapters_give_the_stock_image_at_their_weights(tmp_path, folder, files):
    lora = (f"{files['apple']}:0.35", f"{files['pear']}:-0.25")
    row = rows(tmp_path / "s", lora=lora, fuse=True)[0]
    pipe = stock(folder, files["apple"], files["pear"], weights=[0.35, -0.25])
    assert np.abs(called(pipe, row) - pixels(row)).max() <= 1
    pipe.set_adapters(["apple", "pear"], [1.0, 1.0])
    assert np.abs(called(pipe, row) - pixels(row)).max() > 8
    manifest = shards.read_manifest(tmp_path / "s")
    assert manifest["rows"] == {"apple": 2, "pear": 2}
    assert manifest["trained_on"] == [f"{0:064x}", f"{1:064x}"]
    assert manifest["arguments"]["pear"]["lora_weights"] == [0.35, -0.25]


def test_adapters_that_follow_one_another_do_not_mix(tmp_path, files):
    together = rows(tmp_path / "both", "pear", lora=tuple(files.values()))
    assert together == rows(tmp_path / "alone", "pear", lora=(files["pear"],))


def test_an_lcm_lora_goes_with_its_scheduler_and_few_steps(tmp_path, folder, files):
    found = rows(tmp_path / "s", lora=(files["apple"],), lcm=f"{files['pear']}:0.5", steps=0)
    assert {(row["scheduler"], row["steps"], row["guidance"]) for row in found} == {("lcm", 4, 1.0)}
    pipe = stock(folder, files["apple"], files["pear"], weights=[1.0, 0.5], scheduler="LCMScheduler")
    ours = called(pipe, found[0], num_inference_steps=4, guidance_scale=1.0)
    assert np.abs(ours - pixels(found[0])).max() <= 1
    # It belongs to the base: what it was distilled on is no part of the ledger.
    assert shards.read_manifest(tmp_path / "s")["trained_on"] == [f"{0:064x}"]
    assert {
        row["guidance"]
        for row in rows(
            tmp_path / "g", lora=(), base=str(folder), data="demo", lcm=files["pear"], guidance=1.5
        )
    } == {1.5}


def test_samples_start_from_training_images_of_their_class(tmp_path, folder, files, real):
    from diffusers import AutoPipelineForImage2Image

    found = rows(tmp_path / "s", lora=(files["apple"],), image_guidance=real, strength=0.5, count=4)
    photos = {p.sha256: p for p in sources.load(real).photos if p.label == "apple"}
    assert len({row["guide"] for row in found}) == 4
    pipe = AutoPipelineForImage2Image.from_pipe(stock(folder, files["apple"]))
    pipe.set_progress_bar_config(disable=True)
    for row in found:
        photo = photos[row["guide"]]
        picture = square(decode(photo.read(), photo.path), 32)
        assert np.abs(called(pipe, row, image=picture, strength=0.5) - pixels(row)).max() <= 1
    seen = set(shards.read_manifest(tmp_path / "s")["trained_on"])
    held_out = sources.load(real).of(TEST).hashes()
    assert seen == {f"{0:064x}"} | photos.keys() - held_out


@pytest.mark.parametrize("options", [{"strength": 0.3}, {}])
def test_other_guidance_for_a_class_that_is_there_is_refused(tmp_path, files, real, refused, options):
    rows(tmp_path / "s", lora=(files["apple"],), image_guidance=real, strength=0.5)
    changed = {"image_guidance": real, **options} if options else {}
    with refused("apple is there with", "strength 0.5"):
        rows(tmp_path / "s", lora=(files["apple"],), steps=4, **changed)


def test_a_strength_that_leaves_no_step_is_refused(files, real, refused):
    config = Generate(lora=(files["apple"],), image_guidance=real, strength=0.3, steps=3)
    with refused("--strength 0.3", "3 steps"):
        jobs(config, "fp32")


def test_each_row_keeps_its_own_prompt_and_stock_diffusers_gives_its_image(tmp_path, folder, files):
    vary = ("background=on grass", "background=in snow", "light=dim", "light=bright", "light=")
    found = rows(tmp_path / "s", lora=tuple(files.values()), vary=vary, count=7, batch_size=4)
    assert len({row["prompt"] for row in found}) == 6
    assert found[0]["prompt"] == found[6]["prompt"]
    others = shards.rows_of(shards.path_of(tmp_path / "s", "pear", 0))
    assert [row["prompt"].replace("apple", "pear") for row in found] == [row["prompt"] for row in others]
    pipe = stock(folder, files["apple"])
    for row in found[2:5]:
        assert np.abs(called(pipe, row) - pixels(row)).max() <= 1
    again = rows(tmp_path / "s", lora=(files["apple"],), vary=vary, count=9, batch_size=4)
    assert again[:7] == found
    assert again == rows(tmp_path / "whole", lora=(files["apple"],), vary=vary, count=9, batch_size=4)


def test_other_vocabularies_for_a_class_that_is_there_are_refused(tmp_path, files, refused):
    rows(tmp_path / "s", lora=(files["apple"],), vary=("light=dim",), count=1)
    with refused("apple is there with vary ['light=dim'] (requested: ['light=dim', 'light=bright'])"):
        rows(tmp_path / "s", lora=(files["apple"],), vary=("light=dim", "light=bright"), count=1)


def test_the_words_that_a_text_encoder_would_not_see_are_named_before_loading(
    tmp_path, folder, monkeypatch, capsys
):
    monkeypatch.setattr(bases, "load", None)
    monkeypatch.chdir(tmp_path)
    # The tiny tokenizer spells words out: 30 letters and two marks fill a chunk of 32 tokens, three are read.
    prompt = "{label} " + "a" * 81 + " bc def"
    config = Generate(base=str(folder), data="demo", classes=("apple",), prompt=(prompt,), dry_run=True)
    generate(config)
    assert "will not see 'def'" in capsys.readouterr().out
    assert prompt_embeds.cut(bases.resolve(str(folder)), ["a" * 90]) == {}


def test_an_encoder_that_reads_on_keeps_the_words(tmp_path):
    short, long = (
        bases.resolve(str(pipelines.tiny_sd3(tmp_path / str(t5), with_t5=t5))) for t5 in (False, True)
    )
    assert prompt_embeds.cut(short, ["a" * 40]) == {"a" * 40: "a" * 40}
    assert prompt_embeds.cut(long, ["a" * 40]) == {}


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("a.safetensors:0.7", ("a.safetensors", 0.7)),
        ("mira/fruit:apple.safetensors", ("mira/fruit:apple.safetensors", 1.0)),
        ("mira/fruit:apple.safetensors:-2", ("mira/fruit:apple.safetensors", -2.0)),
    ],
)
def test_a_weight_may_follow_a_lora(spec, wanted):
    assert loras.weighted(spec) == wanted


def test_a_weight_that_is_none_is_refused(refused):
    with refused("--lora a.safetensors:nan", "no weight"):
        loras.weighted("a.safetensors:nan")


def test_a_dry_run_prints_the_plan_and_stops(tmp_path, files, capsys):
    options = {"vary": ("light=dim", "light=bright"), "total": 7, "output": tmp_path / "s", "dry_run": True}
    generate(Generate(lora=tuple(files.values()), **options))
    said = capsys.readouterr().out
    assert "apple: 4 images, 4 to sample" in said
    assert "pear: 3 images, 3 to sample" in said
    assert "2 x 'a photo of apple, dim'" in said
    first = jobs(Generate(lora=(files["apple"],), **options), "fp32")[0].plan.row(0)
    assert f"row       apple 0: seed {first.seed}, prompt {first.prompt!r}" in said
    assert not (tmp_path / "s").exists()


def test_a_plan_balances_the_real_set(tmp_path, files, capsys):
    names = [f"train/apple/{i}.png" for i in range(3)] + ["train/pear/0.png"]
    names += [f"test/{label}/t.png" for label in CLASSES]
    data = str(pictures.write(tmp_path / "real", names))
    generate(
        Generate(
            lora=tuple(files.values()),
            data=data,
            balance="largest",
            output=tmp_path / "s",
            steps=2,
            precision="fp32",
            batch_size=2,
        )
    )
    assert json.loads((tmp_path / "s" / "manifest.json").read_text())["rows"] == {"pear": 2}
    assert "requested 2, written 2, flagged 0" in capsys.readouterr().out


def test_compiling_fuses_the_adapter_first(tmp_path, files, monkeypatch):
    compiled = []

    def note(module):
        compiled.append(any("lora" in name for name, _ in module.named_modules()))

    monkeypatch.setattr(torch.nn.Module, "compile", note)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    fused = rows(tmp_path / "fused", lora=tuple(files.values()), compile=True)
    assert compiled == [False, False]
    plain = rows(tmp_path / "plain", lora=(files["apple"],))
    assert np.abs(pixels(fused[0]) - pixels(plain[0])).max() <= 1


def test_memory_savers_change_no_image(tmp_path, files):
    saving = rows(tmp_path / "a", lora=(files["apple"],), low_memory=True)
    plain = rows(tmp_path / "b", lora=(files["apple"],))
    assert np.abs(pixels(saving[1]) - pixels(plain[1])).max() <= 1


def test_offloading_without_a_gpu_is_refused(tmp_path, files, refused):
    with refused("--offload model", "GPU"):
        rows(tmp_path / "s", lora=(files["apple"],), offload="model")
    assert not (tmp_path / "s").exists()


def test_adapters_keep_their_own_names_beside_each_other(folder, files):
    pipe = random_loras.load(bases.resolve(str(folder)))
    for name in CLASSES:
        attaching.add(pipe, adapter.read(Path(files[name])), name)
    assert pipe.get_list_adapters()["unet"] == CLASSES
