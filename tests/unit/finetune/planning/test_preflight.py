"""What the trainer finds out before it loads any weight."""

import collections
from dataclasses import replace
from pathlib import Path

import pictures
import pipelines
import pytest
import torch
from accelerate import Accelerator

from finetune import command
from finetune.config import TrainLora
from finetune.context import Job, Plan
from finetune.data import encoded_cache, training_set
from finetune.data.encoded_cache import keys_of
from finetune.data.encoding import Encoder
from finetune.models import lora, targets
from finetune.models.families import family_of
from finetune.planning import preflight
from orchard.adapters import layers
from orchard.bases import bases
from orchard.datasets import sources

CPU = torch.device("cpu")
BASES = {"sd": pipelines.tiny, "sdxl": pipelines.tiny_sdxl, "sd3": pipelines.tiny_sd3}
Usage = collections.namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp("bases") / name) for name, make in BASES.items()}


@pytest.fixture
def photos(tmp_path) -> Path:
    return pictures.write(
        tmp_path / "photos", ["test/apple/0.png", *(f"train/apple/{k}.png" for k in range(4))]
    )


def check(folder: Path, photos: Path, **options) -> Plan:
    config = TrainLora(data=str(photos), output=photos / "out", **options)
    real, sizes = training_set.select(sources.load(config.data), config)
    base = bases.resolve(str(folder))
    plan = Plan(
        base=base,
        photos=real,
        targets=attention(base),
        jobs=[Job(name="apple", classes=("apple",), photos=real)],
        broken=(),
        precision="fp32",
        cache=preflight.cache_folder(config.cache),
        keys=keys_of(base, "fp32", "cpu", preflight.encoded_sizes(base, sizes, bucketed=config.buckets)),
        checks=(),
    )
    return replace(plan, checks=preflight.check(config, plan, CPU))


def attention(base: bases.Base) -> targets.Targets:
    return targets.resolve(["attention"], layers.skeleton(base.folder), base.family, trains_text=False)


def test_a_full_disk_is_refused_with_both_numbers_before_any_weight_is_loaded(
    folders, photos, tmp_path, refused, monkeypatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**9, 10**9, 12_000))
    monkeypatch.setattr(bases, "load", None)
    config = TrainLora(
        data=str(photos),
        base=str(folders["sd"]),
        output=tmp_path / "out",
        cache=str(tmp_path / "cache"),
        shots=2,
    )
    with refused("--output", "--cache", "kB of disk space, 12.0 kB are free", "lower --keep"):
        command.train(config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


@pytest.mark.parametrize("name", [*BASES, "inpainting"])
def test_what_entries_and_adapters_will_take_is_what_they_take(tmp_path, folders, name):
    there = folders.get(name) or pipelines.tiny(tmp_path / "base", channels=9)
    base, pipe = pipelines.load(there)
    family = family_of(pipe, base)
    photo = pictures.photo("a.png", "a", data=pictures.encoded(pictures.noise(0)))
    keys = keys_of(base, "fp32", "cpu", {photo.sha256: (32, 32)})
    Encoder(family=family, keys=keys, folder=tmp_path, accelerator=Accelerator(cpu=True)).dataset(
        [photo], ["a"]
    )
    for key, least in ((keys.photo(photo), 0.95), (keys.prompt("a"), 0)):
        told, taken = preflight.entry_bytes(base, key), encoded_cache.path_of(tmp_path, key).stat().st_size
        header = 2000
        assert least * told < taken < told + header

    parameters = lora.inject(family.denoiser, 3, 3, 0)
    weights = 4 * sum(parameter.numel() for parameter in parameters)
    trained = attention(base)
    assert preflight.adapter_bytes(TrainLora(rank=3, steps=10, save_every=0), base, trained, 1) == weights * (
        1 + 3
    )
    # Two adapters, two checkpoints of each, one more under way; AdamW keeps two numbers a weight.
    kept = TrainLora(rank=3, steps=10, save_every=2, keep=2)
    assert preflight.adapter_bytes(kept, base, trained, 2) == weights * (2 + 5 * 3)


def test_the_plan_tells_shapes_cache_disk_and_device(folders, photos, tmp_path):
    text = "\n".join(check(folders["sd"], photos, cache=str(tmp_path / "cache")).checks)
    assert f"cache     {tmp_path / 'cache'} has 0 of 4 photos and 0 of 1 prompts" in text
    assert "adapters and checkpoints" in text and "encoded photos and prompts" in text
    assert "device    cpu, which computes in fp32" in text
    assert "buckets" not in text
    assert list(tmp_path.iterdir()) == [photos]


def test_photos_go_into_the_buckets_of_their_shapes(folders, tmp_path, refused, monkeypatch):
    turned = pictures.halves(6)  # 8x6, shown as 6x8
    wide = pictures.encoded(pictures.noise(0, (8, 6)))
    files = {
        f"train/apple/{k}.jpg": data for k, data in enumerate([turned, wide, wide + b"\0", wide + b"\0\0"])
    }
    photos = pictures.write(
        tmp_path / "photos", files | {"test/apple/0.png": pictures.encoded(pictures.noise(7))}
    )
    with refused("--buckets", "has 32 px", "512"):
        check(folders["sd"], photos, buckets=True)
    monkeypatch.setattr("finetune.step.buckets.LEAST", 32)
    monkeypatch.setattr("finetune.step.buckets.MULTIPLE", 2)
    found = check(folders["sd"], photos, buckets=True)
    assert "buckets   36x28 3, 28x36 1 (width x height, photos)" in found.checks
    assert sorted(found.keys.sizes.values()) == [(28, 36)] * 3 + [(36, 28)]


@pytest.mark.parametrize("skip", [False, True])
def test_a_broken_photo_is_named_or_left_out_and_told(tmp_path, refused, skip):
    places = ("train", "test")
    whole = {f"{place}/apple/0.png": pictures.encoded(pictures.noise(k)) for k, place in enumerate(places)}
    broken = {"train/apple/cut.jpg": pictures.half_a_jpeg(), "train/apple/empty.png": b""}
    config = TrainLora(data=str(pictures.write(tmp_path, whole | broken)), skip_bad=skip)
    if not skip:
        with refused("apple/cut.jpg", "--skip_bad"):
            training_set.select(sources.load(config.data), config)
        return
    kept, sizes = training_set.select(sources.load(config.data), config)
    assert sizes.keys() == kept.hashes()
    assert any("apple/cut.jpg" in note for note in kept.notes)
    assert any("apple/empty.png" in note and "the file is empty" in note for note in kept.notes)
    assert "skipped 2 files that are not whole images" in kept.notes


def test_the_cache_lies_where_it_is_asked_for(monkeypatch, refused):
    with refused("--cache is empty"):
        TrainLora(cache="").require_valid()
    assert preflight.cache_folder("none") is None
    assert preflight.cache_folder("~/kept") == Path.home() / "kept"
    monkeypatch.setenv("ORCHARD_CACHE", "/named")
    assert preflight.cache_folder("auto") == Path("/named")
    monkeypatch.setenv("ORCHARD_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert preflight.cache_folder("auto") == Path("/xdg/orchard")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert preflight.cache_folder("auto") == Path.home() / ".cache" / "orchard"
