"""Bases by folder, by Hub name and as one file; families told from what is on disk."""

import json
import shutil
import socket
from pathlib import Path

import pipelines
import pytest
import single_files
import torch
from safetensors.torch import load_file, save_file

from orchard.bases import bases, families, single_file

CPU = torch.device("cpu")
TINY = {
    "sd": pipelines.tiny,
    "sdxl": pipelines.tiny_sdxl,
    "sd3": pipelines.tiny_sd3,
    "sana": pipelines.tiny_sana,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp("bases") / name) for name, make in TINY.items()}


@pytest.fixture
def offline(monkeypatch):
    """No connection can be opened."""

    def refuse(*arguments):
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize(
    ("family", "width", "prediction"),
    [("sd", 16, "epsilon"), ("sdxl", 40, "epsilon"), ("sd3", 48, "flow"), ("sana", 16, "flow")],
)
def test_family_and_sizes_are_told_from_the_configs(folders, family, width, prediction):
    base = bases.resolve(str(folders[family]))
    assert (base.family, base.resolution, base.cross_attention_dim, base.prediction_type) == (
        family,
        32,
        width,
        prediction,
    )


@pytest.mark.parametrize(("family", "part"), [("sdxl", "text_encoder_2"), ("sd3", "transformer")])
def test_the_digest_covers_every_component(folders, tmp_path, family, part):
    other = TINY[family](tmp_path / "same")
    assert bases.resolve(str(other)).digest == bases.resolve(str(folders[family])).digest
    changed = TINY[family](tmp_path / "changed")
    path = next((changed / part).glob("*.safetensors"))
    tensors = load_file(path)
    next(iter(tensors.values())).add_(1)
    save_file(tensors, path, metadata={"format": "pt"})
    assert bases.resolve(str(changed)).digest != bases.resolve(str(folders[family])).digest


def test_a_missing_text_encoder_is_named(tmp_path, refused):
    folder = pipelines.tiny_sd3(tmp_path)
    next((folder / "text_encoder_2").glob("*.safetensors")).unlink()
    with refused("no safetensors weights in text_encoder_2/"):
        bases.resolve(str(folder))


def test_another_family_is_refused_with_the_supported_ones(tmp_path, refused):
    folder = pipelines.tiny(tmp_path)
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "FluxPipeline"}))
    with refused("a FluxPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline"):
        bases.resolve(str(folder))


@pytest.mark.parametrize("variant", [None, "fp16", "bf16"])
def test_variants_are_fetched_from_the_hub_only_where_nothing_else_is(tmp_path, monkeypatch, variant):
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    there = pipelines.tiny(tmp_path / "there")
    for part in ("unet", "vae", "text_encoder"):
        (path,) = (there / part).glob("*.safetensors")
        shutil.copy(path, path.with_suffix(f".{variant or 'fp16'}.safetensors"))
        if variant and part != "vae":
            path.unlink()

    def fetch(repo, allow_patterns, ignore_patterns):
        names = [str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()]
        wanted = {"allow_patterns": allow_patterns, "ignore_patterns": ignore_patterns}
        for name in filter_repo_objects(names, **wanted):
            (tmp_path / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(there / name, tmp_path / "cache" / name)
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    base = bases.resolve(f"mira/{variant}")
    assert base.variant == variant
    assert base.digest == bases.resolve(str(there)).digest
    fetched = {path.name for path in (tmp_path / "cache" / "unet").glob("*.safetensors")}
    assert fetched == {f"diffusion_pytorch_model{f'.{variant}' if variant else ''}.safetensors"}
    assert bases.load(base, torch.float32, CPU).unet.dtype == torch.float32


def test_a_gated_base_says_how_to_get_it(monkeypatch, refused):
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    def refuse(*arguments, **options):
        raise GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with refused("sd35-medium", "stabilityai/stable-diffusion-3.5-medium", "accept its terms"):
        bases.resolve("sd35-medium")


@pytest.mark.parametrize("inpaints", [False, True])
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_one_file_with_configs_beside_it_is_the_same_pipeline_offline(tmp_path, offline, family, inpaints):
    configs = (pipelines.INPAINTING if inpaints else TINY)[family](tmp_path / "model")
    _, folder = pipelines.load(configs)
    file = single_files.write(folder, tmp_path / "model.safetensors")
    for path in configs.rglob("*.safetensors"):
        path.unlink()
    base = bases.resolve(str(file), inpainting=True)
    assert (base.family, base.resolution, base.file, base.inpaints) == (family, 32, file, inpaints)
    loaded = bases.load(base, torch.float32, CPU)
    assert type(loaded) is type(folder)
    for part in ("unet", "vae", *families.FAMILIES[family].text_encoders):
        ours, theirs = (getattr(pipe, part).state_dict() for pipe in (loaded, folder))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), part


def test_one_file_without_configs_names_where_they_would_be(tmp_path, offline, refused, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    pipe = bases.load(bases.resolve(str(pipelines.tiny(tmp_path / "base"))), torch.float32, CPU)
    file = single_files.write(pipe, tmp_path / "model.safetensors")
    with refused(str(tmp_path / "model"), "the configs of stable-diffusion-v1-5", "check the network"):
        bases.resolve(str(file))


def test_one_file_with_the_configs_of_another_family_is_refused(tmp_path, folders, refused):
    pipe = bases.load(bases.resolve(str(folders["sd"])), torch.float32, CPU)
    file = single_files.write(pipe, tmp_path / "model.safetensors")
    pipelines.tiny_sdxl(tmp_path / "model")
    with refused("family sd, text width 16", "of sdxl, 40"):
        bases.resolve(str(file))


def test_one_file_that_inpaints_with_configs_of_one_that_does_not_is_refused(tmp_path, folders, refused):
    _, pipe = pipelines.load(pipelines.tiny(tmp_path / "inpainting", channels=9))
    file = single_files.write(pipe, tmp_path / "model.safetensors")
    shutil.copytree(folders["sd"], tmp_path / "model")
    with refused("its UNet is for inpainting", f"the configs in {tmp_path / 'model'} not for inpainting"):
        bases.resolve(str(file), inpainting=True)


UNET, TEXT = "model.diffusion_model.", "cond_stage_model.transformer.text_model.x"
KEY = f"{UNET}input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight"


def shapes(path: Path, **tensors: tuple[int, ...]) -> Path:
    save_file({key: torch.zeros(shape) for key, shape in tensors.items()}, path)
    return path


@pytest.mark.parametrize(
    ("tensors", "word"),
    [
        ({"unet.mid_block.attn.to_q.lora_A.weight": (4, 16)}, "holds a LoRA, not a base"),
        ({"lora_unet_mid_block_attn_to_q.lora_down.weight": (4, 16)}, "holds a LoRA, not a base"),
        ({"encoder.weight": (1,)}, "no Stable Diffusion checkpoint"),
        ({f"{UNET}double_blocks.0.img_attn.qkv.weight": (3, 3)}, "no text encoder"),
        ({f"{UNET}double_blocks.0.img_attn.qkv.weight": (3, 3), TEXT: (1,)}, "not a Stable Diffusion UNet"),
        ({f"{UNET}input_blocks.0.0.weight": (8, 8, 3, 3), KEY: (8, 768), TEXT: (1,)}, "8 channels"),
    ],
)
def test_a_file_that_is_no_base_is_refused(tmp_path, refused, tensors, word):
    with refused("a.safetensors", word):
        bases.resolve(str(shapes(tmp_path / "a.safetensors", **tensors)))


def test_a_damaged_or_missing_file_is_refused(tmp_path, refused):
    (tmp_path / "a.safetensors").write_bytes(b"hello" * 10)
    with refused("a.safetensors", "not a safetensors file"):
        bases.resolve(str(tmp_path / "a.safetensors"))
    with refused("b.safetensors: no such file"):
        bases.resolve(str(tmp_path / "b.safetensors"))


@pytest.mark.parametrize(
    ("text", "width", "configs"),
    [
        (TEXT, 768, "stable-diffusion-inpainting"),
        (TEXT, 1024, "stable-diffusion-2-inpainting"),
        ("conditioner.embedders.1.x", 2048, "stable-diffusion-xl-1.0-inpainting-0.1"),
    ],
)
def test_a_file_that_inpaints_tells_whose_configs_it_shares(tmp_path, text, width, configs):
    tensors = {f"{UNET}input_blocks.0.0.weight": (8, 9, 3, 3), KEY: (8, width), text: (1,)}
    found = single_file.read(shapes(tmp_path / "a.safetensors", **tensors))
    assert (found.configs.rpartition("/")[2], found.inpaints) == (configs, True)


@pytest.mark.parametrize(
    ("width", "depth", "second", "configs"),
    [
        (768, 0, False, "stable-diffusion-v1-5"),
        (1024, 0, False, "stable-diffusion-2-1"),
        (4096, 24, False, "stable-diffusion-3-medium-diffusers"),
        (4096, 24, True, "stable-diffusion-3.5-medium"),
        (4096, 38, False, "stable-diffusion-3.5-large"),
    ],
)
def test_a_file_tells_whose_configs_it_shares(tmp_path, width, depth, second, configs):
    if depth:
        tensors = {f"{UNET}joint_blocks.{i}.x_block.attn.proj.weight": (1,) for i in range(depth)}
        tensors |= {f"{UNET}context_embedder.weight": (1, width), "text_encoders.clip_l.x": (1,)}
        tensors |= {f"{UNET}joint_blocks.0.x_block.attn2.proj.weight": (1,)} if second else {}
    else:
        tensors = {f"{UNET}input_blocks.0.0.weight": (8, 4, 3, 3), KEY: (8, width), TEXT: (1,)}
    found = single_file.read(shapes(tmp_path / "a.safetensors", **tensors))
    assert found.configs.endswith(f"/{configs}")
    assert found.cross_attention_dim == width
