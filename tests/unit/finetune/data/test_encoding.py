"""Encoded photos and prompts on disk: kept, found again, remade where they are not what they should be."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pictures
import pipelines
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file
from shell import TRAIN, TWO, command

from finetune.config import TrainLora
from finetune.context import Job
from finetune.data import encoded_cache
from finetune.data.encoded_cache import keys_of
from finetune.data.encoding import Encoder
from finetune.models.families import family_of
from finetune.planning import resume
from finetune.step.batches import EncodedDataset, draw
from orchard.bases import bases
from orchard.images.boxes import Annotated, Box

CPU = torch.device("cpu")
PHOTOS = [
    pictures.photo(f"{k}.png", "apple", data=pictures.encoded(pictures.noise(k, (40, 32)))) for k in range(3)
]
TEXTS = ["a photo of apple", "a red apple", "a photo of apple"]
BASES = {
    "sd": pipelines.tiny,
    "sdxl": pipelines.tiny_sdxl,
    "sd3-t5": lambda folder: pipelines.tiny_sd3(folder, with_t5=True),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp("bases") / name) for name, make in BASES.items()}


class Counted:
    """An encoder that counts what it really encodes."""

    def __init__(self, base_folder: Path, cache: Path | None, photos=PHOTOS) -> None:
        base = bases.resolve(str(base_folder))
        family = family_of(bases.load(base, torch.float32, CPU), base)
        keys = keys_of(base, "fp32", "cpu", {photo.sha256: (32, 32) for photo in photos})
        self.encoder = Encoder(family=family, keys=keys, folder=cache, accelerator=Accelerator(cpu=True))
        self.images = self.prompts = 0
        vae, encode_prompt = family.pipe.vae.encode, family.pipe.encode_prompt

        def image(*arguments, **options):
            self.images += 1
            return vae(*arguments, **options)

        def prompt(*arguments, **options):
            self.prompts += 1
            return encode_prompt(*arguments, **options)

        family.pipe.vae.encode, family.pipe.encode_prompt = image, prompt

    def cache(self, photos=PHOTOS) -> EncodedDataset:
        self.images = self.prompts = 0
        return self.encoder.dataset(photos, TEXTS)

    @property
    def made(self) -> tuple[int, int]:
        return self.images, self.prompts


def equal(one: EncodedDataset, other: EncodedDataset) -> bool:
    pairs = [(one.prompt_of, other.prompt_of)]
    for image, same in zip(one.images, other.images, strict=True):
        pairs += [(image.mean, same.mean), (image.std, same.std)]
    for prompt, same in zip(one.prompts, other.prompts, strict=True):
        pairs += [(prompt[name], same[name]) for name in prompt.keys() | same.keys()]
    return all(torch.equal(a, b) for a, b in pairs)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


@pytest.mark.parametrize("name", BASES)
def test_a_full_an_empty_and_no_cache_give_the_same_bits(tmp_path, folders, name):
    kept = Counted(folders[name], tmp_path)
    cold = kept.cache()
    assert kept.made == (3, 2)
    warm = kept.cache()
    assert kept.made == (0, 0)
    without = Counted(folders[name], None)
    assert equal(cold, warm) and equal(cold, without.cache())
    assert without.made == (3, 2)
    assert len(files(tmp_path)) == len(list(tmp_path.rglob("*.*"))) == 5


def test_an_edited_photo_is_encoded_again_and_no_other(tmp_path, folders):
    before = Counted(folders["sd"], tmp_path).cache()
    edited = pictures.photo("1.png", "apple", data=pictures.encoded(pictures.noise(9, (40, 32))))
    photos = [PHOTOS[0], edited, PHOTOS[2]]
    counted = Counted(folders["sd"], tmp_path, photos)
    after = counted.cache(photos)
    assert counted.made == (1, 0)
    same = [torch.equal(a.mean, b.mean) for a, b in zip(before.images, after.images, strict=True)]
    assert same == [True, False, True]


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def swap(path: Path) -> None:
    shutil.copy(next(other for other in files(path.parent) if other != path), path)


DAMAGES = {
    "cut in half": (halve, "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "a text": (lambda path: path.write_bytes(b"hello" * 99), "cannot be read"),
    "one bit": (flip_a_bit, "another checksum"),
    "another entry": (swap, "made from something else"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_entry_is_found_counted_and_made_anew(tmp_path, folders, capsys, damage, reason):
    counted = Counted(folders["sd"], tmp_path)
    whole = counted.cache()
    damage(files(tmp_path / "photos")[1])
    damage(files(tmp_path / "prompts")[0])
    assert equal(counted.cache(), whole)
    assert counted.made == (1, 1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("damaged entries made again: 1 (" in line for line in lines)
    assert all(reason in line for line in lines)
    assert equal(counted.cache(), whole)
    assert counted.made == (0, 0)


def test_a_batch_reads_its_own_entries_from_the_cache_and_none_stays(tmp_path, folders, monkeypatch):
    dataset = Counted(folders["sd"], tmp_path).cache()
    opened, read = [], encoded_cache.read

    def noted(path):
        opened.append(path.parent.name)
        return read(path)

    monkeypatch.setattr(encoded_cache, "read", noted)
    for step in range(3):
        opened.clear()
        whole = draw(dataset, step, batch_size=2, seed=0, flip=True)
        prompts = len({int(dataset.prompt_of[row]) for row in whole.rows})
        assert sorted(opened) == ["photos"] * 2 + ["prompts"] * prompts
        opened.clear()
        half = draw(dataset, step, batch_size=2, seed=0, flip=True, part=1, parts=2)
        assert sorted(opened) == ["photos", "prompts"]
        assert torch.equal(half.latents, whole.latents[1:])


def test_a_training_set_on_disk_takes_no_memory(tmp_path):
    def own_bytes() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

    if not Path("/proc/self/status").is_file():
        pytest.skip("needs Linux, which says what memory is no file's")
    keys = [{"kind": "photos", "file": str(row)} for row in range(64)]

    def make(row):
        return {"mean": torch.full((2**18,), row)}

    accelerator, before = Accelerator(cpu=True), own_bytes()
    found = encoded_cache.gather(tmp_path, keys, make, accelerator, title="", unit="", least=99)
    sums = [found[row]["mean"].sum().item() for row in range(64)]
    assert sums == [row * 2**18 for row in range(64)]
    assert own_bytes() - before < 64 * 2**20 / 4  # of 64 entries of two megabytes


@pytest.mark.parametrize("damage", [Path.unlink, halve], ids=["gone", "cut in half"])
def test_an_entry_that_goes_during_the_run_ends_it_with_its_name(tmp_path, folders, refused, damage):
    dataset = Counted(folders["sd"], tmp_path).cache()
    for path in files(tmp_path / "photos"):
        damage(path)
    with refused("safetensors: gone or damaged since the run began", "resume it"):
        draw(dataset, 0, batch_size=2, seed=0, flip=True)


class Process:
    """One of two, as far as `gather` can tell."""

    num_processes, device, is_main_process = 2, CPU, False

    def __init__(self, index: int) -> None:
        self.process_index = index

    def wait_for_everyone(self) -> None:
        pass

    def reduce(self, value: torch.Tensor, how: str) -> torch.Tensor:
        return value


@pytest.mark.parametrize("shared", [True, False])
def test_processes_share_the_work_and_each_machine_has_all(tmp_path, monkeypatch, shared):
    keys = [{"kind": "photos", "file": str(row)} for row in range(5)]
    folders = [tmp_path / "one", tmp_path / ("one" if shared else "other")]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    monkeypatch.setattr(encoded_cache, "gather_object", lambda own: [place(folder) for folder in folders])
    made, checked, is_there = [], [], encoded_cache.is_there

    def noted(path, key):
        checked.append(path)
        return is_there(path, key)

    def place(folder):
        return encoded_cache.platform.node(), folder.stat().st_dev, folder.stat().st_ino

    def make(row):
        made.append(row)
        return {"mean": torch.full((2,), float(row))}

    monkeypatch.setattr(encoded_cache, "is_there", noted)

    def gathered():
        parts = zip(folders, map(Process, range(2)), strict=True)
        return [encoded_cache.gather(where, keys, make, one, title="", unit="") for where, one in parts]

    for found in gathered():
        assert [found[row]["mean"][0].item() for row in range(5)] == [0, 1, 2, 3, 4]
    assert sorted(made) == sorted([*range(5)] * (1 if shared else 2))
    made.clear(), checked.clear()
    gathered()
    # Each file is read once, by whichever process of its machine.
    assert not made and len(checked) == len(set(checked)) == (5 if shared else 10)


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_photos_are_encoded_whole_on_white_or_by_their_centres(folders, monkeypatch, fit):
    wide = Image.new("RGB", (64, 32), pictures.BLUE)
    wide.paste(pictures.RED, (0, 0, 16, 32))
    expected = np.full((32, 32, 3), pictures.BLUE)
    if fit == "pad":
        expected[:8] = expected[24:] = 255
        expected[8:24, :8] = pictures.RED
    photo = pictures.photo("wide.png", "apple", data=pictures.encoded(wide))
    encoder = Counted(folders["sd"], None, [photo]).encoder
    encoder = replace(encoder, keys=replace(encoder.keys, fit=fit))
    seen, encode = [], type(encoder.family).encode_image

    def encode_image(family, pixels):
        seen.append(pixels)
        return encode(family, pixels)

    monkeypatch.setattr(type(encoder.family), "encode_image", encode_image)
    encoder.dataset([photo], TEXTS[:1])
    clear = np.ones((32, 32), dtype=bool)  # the filter rings where colours change
    if fit == "pad":
        clear[6:10] = clear[22:26] = clear[:, 6:10] = False
    assert np.abs(seen[0].astype(int) - expected)[clear].max() <= 12


def test_a_crop_keeps_the_box_of_an_object_and_says_so_in_key_and_identity(folders):
    wide = Image.new("RGB", (64, 32), pictures.BLUE)
    wide.paste(pictures.RED, (0, 0, 16, 32))
    plain = pictures.photo("wide.png", "apple", data=pictures.encoded(wide))
    boxed = replace(plain, annotations=(lambda: Annotated((Box(0, 0, 16, 32),)),))
    encoder = Counted(folders["sd"], None, [plain]).encoder
    pad, crop = encoder.keys, replace(encoder.keys, fit="crop")
    assert pad.photo(boxed) == pad.photo(plain)
    assert crop.photo(boxed) != crop.photo(plain)
    shown = replace(encoder, keys=crop)._pixels(boxed, boxed.image())
    assert (shown[:, :12, 0] > 200).all() and (shown[:, 20:, 0] < 50).all()
    base = bases.resolve(str(folders["sd"]))
    for fit, kept in (("pad", False), ("crop", True)):
        jobs = [Job(name="a", classes=("apple",), photos=pictures.image_set([one])) for one in (plain, boxed)]
        found = [resume.identity(TrainLora(fit=fit), base, job, {}) for job in jobs]
        assert ("boxes" in found[1], found[0] == found[1], "boxes" in found[0]) == (kept, not kept, False)


def test_entries_of_other_weights_sizes_framings_and_precisions_are_not_taken(tmp_path, folders):
    base = bases.resolve(str(folders["sd"]))
    sizes = {photo.sha256: (32, 32) for photo in PHOTOS}
    usual = keys_of(base, "fp32", "cpu", sizes)
    other_base = bases.resolve(str(pipelines.tiny(tmp_path / "other", seed=1)))
    others = [
        keys_of(other_base, "fp32", "cpu", sizes),
        keys_of(base, "bf16", "cpu", sizes),
        keys_of(base, "fp32", "cuda", sizes),
    ]
    larger, cropped = replace(usual, sizes=dict.fromkeys(sizes, (32, 64))), replace(usual, fit="crop")
    photos = [keys.photo(PHOTOS[0]) for keys in (usual, *others, larger, cropped)]
    texts = [keys.prompt(TEXTS[0]) for keys in (usual, *others)] + [usual.prompt(TEXTS[1])]
    for found in (photos, texts):
        paths = {encoded_cache.path_of(tmp_path, key) for key in found}
        assert len(paths) == len(found)
    encoded_cache.write(encoded_cache.path_of(tmp_path, photos[0]), photos[0], {"mean": torch.ones(2)})
    shutil.copy(encoded_cache.path_of(tmp_path, photos[0]), encoded_cache.path_of(tmp_path, photos[1]))
    with pytest.raises(encoded_cache.DamagedError, match="made from something else"):
        encoded_cache.is_there(encoded_cache.path_of(tmp_path, photos[1]), photos[1])


def test_weights_and_config_of_the_encoders_are_in_the_keys_and_the_denoiser_is_not(tmp_path):
    def keys():
        bases.resolve.cache_clear()
        return keys_of(bases.resolve(str(folder)), "fp32", "cpu", {})

    folder = pipelines.tiny(tmp_path)
    before = keys()
    flip_a_bit(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert keys() == before
    flip_a_bit(folder / "vae" / "diffusion_pytorch_model.safetensors")
    after = keys()
    assert after.autoencoder != before.autoencoder and after.text_encoders == before.text_encoders
    config = folder / "vae" / "config.json"
    config.write_text(config.read_text().replace("0.18215", "0.2"))
    assert keys().autoencoder not in (before.autoencoder, after.autoencoder)
    words = next((folder / "tokenizer").glob("*.json"))
    words.write_text(words.read_text() + "\n")
    assert keys().text_encoders != before.text_encoders


def test_many_may_write_one_entry_at_once(tmp_path):
    key = {"kind": "photos", "file": "0"}
    path, tensors = encoded_cache.path_of(tmp_path, key), {"mean": torch.arange(50_000.0)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: encoded_cache.write(path, key, tensors), range(40)))
    assert encoded_cache.is_there(path, key)
    assert torch.equal(encoded_cache.read(path)["mean"], tensors["mean"])
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_changes_under_way_is_refused(folders, refused):
    swapped = replace(PHOTOS[0], read=PHOTOS[1].read)
    with refused("0.png: changed during the run"):
        Counted(folders["sd"], None).cache([swapped, *PHOTOS[1:]])


@pytest.mark.slow
def test_two_processes_fill_the_cache_that_one_then_reads(tmp_path, folders):
    small = ("--base", folders["sd"], "--data", "demo", "--classes", "apple", "--shots", 5, "--batch_size", 2)
    words = (*small, "--steps", 3, "--rank", 2, "--precision", "fp32")
    command(tmp_path, *TWO, TRAIN[1], *words, "--output", "both", "--cache", "kept")
    found = files(tmp_path / "kept")
    assert sorted(path.parent.name for path in found) == [*["photos"] * 5, "prompts"]
    assert len(list((tmp_path / "kept").rglob("*.*"))) == 6
    halve(found[2])
    said = command(tmp_path, *TRAIN, *words, "--output", "warm", "--cache", "kept")
    assert "has 5 of 5 photos and 1 of 1 prompts" in said
    assert "damaged entries made again: 1 (" in said
    assert "cache     none" in command(tmp_path, *TRAIN, *words, "--output", "without", "--cache", "none")
    warm, without, both = (
        load_file(tmp_path / name / "apple.safetensors") for name in ("warm", "without", "both")
    )
    assert all(torch.equal(warm[key], without[key]) for key in warm.keys() | without.keys())
    assert all(torch.allclose(warm[key], both[key], atol=2e-5) for key in warm)
