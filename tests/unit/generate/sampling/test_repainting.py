"""Parts of real photos drawn anew: what is kept, what the rows record, and every base that can do it."""

import contextlib
from pathlib import Path

import launches
import numpy as np
import pictures
import pipelines
import pytest
import torch
from PIL import Image
from stub_sampler import ends_within_one_write

from generate.command import generate
from generate.config import Generate
from generate.planning.jobs import jobs
from generate.sampling import repainting
from orchard import shards
from orchard.bases import bases
from orchard.datasets import sources
from orchard.images.images import TEST, decode, square

SIDE = 32
BASES = {
    "sd of 4 channels": pipelines.tiny,
    "sd of 9 channels": lambda folder: pipelines.tiny(folder, channels=9),
    "sdxl": pipelines.tiny_sdxl,
    "sdxl of 9 channels": lambda folder: pipelines.tiny_sdxl(folder, channels=9),
    "sd3": lambda folder: pipelines.tiny_sd3(folder, channels=16),
}
MODES = ("background", "object", "centre", "outpaint")
BOX = (10, 8, 30, 24)
"""Of every photo here, which is 40 x 40: at 32 pixels (8, 6.4, 24, 19.2)."""
XML = (
    "<annotation><object><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
    "</object></annotation>"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp("bases") / "base") for name, make in BASES.items()}


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    """Photos of two classes in splits, all with a box but ``train/apple/3.png``."""
    root = tmp_path_factory.mktemp("real")
    places = [(split, label) for split in ("train", "test") for label in ("apple", "pear")]
    files = {
        f"{split}/{label}/{i}.png": pictures.encoded(pictures.noise(hash_of(split, label, i), (40, 40)))
        for split, label in places
        for i in range(4)
    }
    left, top, right, bottom = BOX
    boxed = XML.format(left + 1, top + 1, right, bottom).encode()
    files |= {name.replace(".png", ".xml"): boxed for name in files if name != "train/apple/3.png"}
    return pictures.write(root, files)


def hash_of(*parts: object) -> int:
    return sum(ord(letter) for letter in "".join(map(str, parts)))


def config(base: Path, data: Path, output: Path, **options) -> Generate:
    settings = {"steps": 3, "batch_size": 2, "count": 5, "precision": "fp32", "screens": ("none",)}
    usual = {"base": str(base), "data": str(data), "output": str(output), "classes": ("apple",)}
    return Generate(**usual | settings | {"repaint": "background"} | options)


def rows(output: Path, label: str = "apple") -> list[dict]:
    return [row for s in shards.existing(output) if s.header.label == label for row in shards.rows_of(s.path)]


def pixels(row: dict) -> np.ndarray:
    return np.asarray(decode(row["image"]["bytes"], "row"))


def photo_of(row: dict, data: Path) -> np.ndarray:
    (photo,) = (p for p in sources.load(str(data)).photos if p.sha256 == row["guide"])
    return np.asarray(square(photo.image(), SIDE))


def boxed() -> np.ndarray:
    """The box at 32 pixels: those whose centres lie in it."""
    inside = np.zeros((SIDE, SIDE), bool)
    inside[6:19, 8:24] = True
    return inside


def middle() -> np.ndarray:
    inside = np.zeros((SIDE, SIDE), bool)
    inside[8:24, 8:24] = True
    return inside


REPAINTED = {"background": lambda: ~boxed(), "object": boxed, "centre": middle}


@pytest.mark.parametrize("mode", REPAINTED)
@pytest.mark.parametrize("name", BASES)
def test_what_is_kept_is_the_photo_to_the_bit_and_the_rest_is_not(tmp_path, made, real, name, mode):
    generate(config(made[name], real, tmp_path, repaint=mode))
    repainted = REPAINTED[mode]()
    found = rows(tmp_path)
    assert len(found) == 5
    for row in found:
        photo = photo_of(row, real)
        assert (pixels(row)[~repainted] == photo[~repainted]).all()
        assert (pixels(row)[repainted] != photo[repainted]).mean() > 0.9
        assert row["repainted"] == pytest.approx(repainted.mean())


@pytest.mark.parametrize("name", BASES)
def test_outpainting_draws_the_middle_and_then_the_rest(tmp_path, made, real, name):
    generate(config(made[name], real, tmp_path, repaint="outpaint"))
    for row in rows(tmp_path):
        assert (pixels(row) != photo_of(row, real)).mean() > 0.9
        assert row["repainted"] == 1.0
    assert shards.read_manifest(tmp_path)["arguments"]["apple"]["strength"] == [0.97, 0.95]


def test_rows_are_those_of_the_stock_pipeline_with_the_photo_pasted_back(tmp_path, made, real):
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionInpaintPipeline

    name = "sd of 9 channels"
    generate(config(made[name], real, tmp_path, repaint="centre", strength=0.7))
    pipe = StableDiffusionInpaintPipeline.from_pretrained(made[name], safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    for row in rows(tmp_path):
        stock = pipe(
            row["prompt"],
            image=Image.fromarray(photo_of(row, real)),
            mask_image=Image.fromarray(middle().astype(np.uint8) * 255),
            generator=torch.Generator().manual_seed(row["seed"]),
            num_inference_steps=3,
            guidance_scale=3.0,
            strength=0.7,
        ).images[0]
        difference = np.abs(np.asarray(stock, dtype=int) - pixels(row))[middle()]
        assert difference.max() <= 1


def test_a_row_records_its_photo_mask_share_strength_and_boxes(tmp_path, made, real):
    generate(config(made["sdxl"], real, tmp_path, repaint="object", strength=0.8, count=6))
    found = rows(tmp_path)
    photos = {p.sha256: p for p in sources.load(str(real)).photos}
    used = [photos[row["guide"]].path for row in found]
    # Each photo that has a box as often as the others; none of the test split.
    assert sorted(used) == sorted(2 * [f"train/apple/{i}.png" for i in range(3)])
    for row in found:
        assert (row["mask"], row["strength"]) == ("boxes", pytest.approx(0.8))
        assert row["box"] == [pytest.approx([8, 6.4, 24, 19.2])]
    seen = set(shards.read_manifest(tmp_path)["trained_on"])
    assert seen == {row["guide"] for row in found}
    assert not seen & sources.load(str(real)).of(TEST).hashes()


def test_rows_without_repainting_have_none_of_its_columns(tmp_path, made, real):
    generate(config(made["sdxl"], real, tmp_path, repaint=None, count=1))
    (row,) = rows(tmp_path)
    assert [row[name] for name in ("mask", "repainted", "strength", "box")] == [None] * 4


def test_photos_without_a_box_are_named_and_counted(tmp_path, made, real, capsys):
    generate(config(made["sdxl"], real, tmp_path, dry_run=True))
    output = capsys.readouterr().out
    assert "3 photos; left out: no box 1 (train/apple/3.png)" in " ".join(output.split())
    sheet = tmp_path / "sheets" / "masks" / "apple.png"
    assert str(sheet) in output.replace("\n", "")
    tiles = np.asarray(Image.open(sheet))
    assert tiles.shape == (SIDE, 3 * SIDE + 2 * 2, 3)
    red = tiles[:, :SIDE, 0].astype(int) - tiles[:, :SIDE, 1:].mean(axis=2)
    assert red[~boxed()].mean() > 100
    assert abs(red[boxed()].mean()) < 20


def test_a_class_without_a_box_is_refused(tmp_path, made, refused):
    names = [f"{split}/{label}/{i}.png" for split in ("train", "test") for label in "ab" for i in range(2)]
    data = pictures.write(tmp_path / "real", names)
    with refused("--repaint background: no training image of class a can be repainted: no box 2", "--mask"):
        generate(config(made["sdxl"], data, tmp_path / "s", classes=("a",)))


def test_a_run_that_is_stopped_anywhere_ends_in_the_rows_of_an_undisturbed_one(tmp_path, made, real):
    options = {"repaint": "outpaint", "shard_size": 2, "count": 5}
    generate(config(made["sd of 4 channels"], real, tmp_path / "whole", **options))
    stopped = config(made["sd of 4 channels"], real, tmp_path / "stopped", **options)
    stops = 0
    while not ends_within_one_write(lambda: generate(stopped)):
        stops += 1
    assert stops == 2
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")


def test_a_stop_in_the_middle_of_a_batch_costs_that_batch_alone(tmp_path, made, real, monkeypatch):
    options = {"repaint": "object", "count": 6}
    generate(config(made["sdxl"], real, tmp_path / "whole", **options))
    whole, calls = repainting.repaint, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(repainting, "repaint", stopping)
    with contextlib.suppress(KeyboardInterrupt):
        generate(config(made["sdxl"], real, tmp_path / "stopped", **options))
    assert len(rows(tmp_path / "stopped")) == 4
    generate(config(made["sdxl"], real, tmp_path / "stopped", **options))
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")


def test_two_processes_give_the_rows_of_one(tmp_path, made, real):
    options = vars(config(made["sd of 9 channels"], real, tmp_path / "one", shard_size=2))
    generate(Generate(**options))
    processes = launches.start(2, options | {"output": str(tmp_path / "two")})
    assert launches.wait(processes) == [0, 0]
    assert rows(tmp_path / "two") == rows(tmp_path / "one")


def plan_counted(options: dict, draw: str) -> None:
    """Plan a run of generate, and note each photo whose mask is made."""
    from generate.planning import repainting

    make = repainting._canvas

    def counted(config, photo, side, source):
        with (Path(config.output) / "made").open("a") as file:
            file.write(f"{photo.path}\n")
        return make(config, photo, side, source)

    repainting._canvas = counted
    generate(Generate(**options))


def test_each_mask_is_made_by_one_process_alone(tmp_path, made, real):
    options = vars(config(made["sdxl"], real, tmp_path, dry_run=True))
    assert launches.wait(launches.start(2, options, call=plan_counted)) == [0, 0]
    assert sorted((tmp_path / "made").read_text().split()) == [f"train/apple/{i}.png" for i in range(4)]


def test_a_flagged_image_is_drawn_again_into_the_same_photo(tmp_path, made, real, monkeypatch):
    from generate.sampling import decoder

    decode_, flagged = decoder.decode, []

    def first_is_flagged(pipe, latents):
        found = decode_(pipe, latents)
        if not flagged:
            flagged.append(1)
            found[0] = decoder.Decoded(image=found[0].image, fault=shards.FLAGGED)
        return found

    monkeypatch.setattr(decoder, "decode", first_is_flagged)
    generate(config(made["sd of 4 channels"], real, tmp_path))
    found = rows(tmp_path)
    assert [row["attempt"] for row in found] == [1, 0, 0, 0, 0]
    plan = jobs(config(made["sd of 4 channels"], real, tmp_path), "fp32")[0].plan
    for row in found:
        assert row["guide"] == plan.row(row["index"]).guide.sha256
        assert (pixels(row)[boxed()] == photo_of(row, real)[boxed()]).all()


def test_a_feathered_edge_lies_between_photo_and_sample(tmp_path, made, real):
    base = made["sd of 4 channels"]
    generate(config(base, real, tmp_path / "hard", repaint="object", count=1))
    generate(config(base, real, tmp_path / "soft", repaint="object", count=1, mask_feather=3))
    (hard,), (soft,) = rows(tmp_path / "hard"), rows(tmp_path / "soft")
    photo = photo_of(hard, real).astype(int)
    far = np.ones((SIDE, SIDE), bool)
    far[:30, :] = False
    assert (pixels(soft)[far] == photo[far]).all()
    edge = np.zeros((SIDE, SIDE), bool)
    edge[8:17, 7] = True  # just outside of the box
    assert (pixels(hard)[edge] == photo[edge]).all()
    assert (pixels(soft)[edge] != photo[edge]).any()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"mask_dilate": 2}, np.s_[4:21, 6:26]),
        ({"mask_dilate": -2}, np.s_[8:17, 10:22]),
        ({"mask_invert": True, "repaint": "object"}, np.s_[6:19, 8:24]),
    ],
)
def test_masks_grow_shrink_and_turn_inside_out(tmp_path, made, real, options, kept):
    generate(config(made["sdxl"], real, tmp_path, count=1, **options))
    (row,) = rows(tmp_path)
    inside = np.zeros((SIDE, SIDE), bool)
    inside[kept] = True
    equal = (pixels(row) == photo_of(row, real)).all(axis=2)
    assert equal[inside].all()
    assert not equal[~inside].any() or equal[~inside].mean() < 0.05


def test_a_latent_cell_is_repainted_whole_where_any_of_its_pixels_is():
    repainted = np.zeros((16, 16), bool)
    repainted[7, 8] = True
    mask = np.asarray(repainting.whole_cells(repainted, 4))
    assert mask.shape == (16, 16)
    assert (mask[4:8, 8:12] == 255).all()
    assert mask.sum() == 16 * 255


def test_a_base_that_inpaints_is_for_repainting_alone(tmp_path, made, real, refused):
    name = str(made["sd of 9 channels"])
    with refused(f"--base {name}: its denoiser takes 9 channels", "--repaint MODE", "text-to-image"):
        generate(config(name, real, tmp_path, repaint=None))
    with refused(f"--base {name}: its denoiser takes 9 channels"):
        generate(config(name, real, tmp_path, repaint=None, image_guidance=str(real)))
    with refused(f"--base {name}: a StableDiffusionInpaintPipeline; supported are"):
        bases.resolve(name)  # as evaluate does


def test_a_base_of_other_latents_is_refused(tmp_path, real, refused):
    folder = pipelines.tiny_sd3(tmp_path / "base")
    with refused("--repaint", "latents of 16 channels", "have 4"):
        generate(config(folder, real, tmp_path / "s"))


def test_other_masks_for_a_class_that_is_there_are_refused(tmp_path, made, real, refused):
    generate(config(made["sdxl"], real, tmp_path, count=1))
    with refused("apple is there with", "mask_dilate"):
        generate(config(made["sdxl"], real, tmp_path, count=2, mask_dilate=3))


WRONG = {
    "both": ({"image_guidance": "demo"}, "--repaint and --image_guidance"),
    "no mode": ({"repaint": None, "mask_feather": 2}, "--mask_feather: goes with --repaint"),
    "a mask of the middle": ({"repaint": "centre", "mask": "grabcut"}, "--mask grabcut"),
    "too soft": ({"mask_feather": -1}, "--mask_feather -1"),
    "no step": ({"strength": 0.1}, "--strength 0.1"),
    "no such folder": ({"mask": "nowhere"}, "--mask nowhere: no such folder"),
}


@pytest.mark.parametrize("name", WRONG)
def test_options_that_make_no_sense_are_refused(tmp_path, made, real, refused, name):
    options, words = WRONG[name]
    with refused(words):
        generate(config(made["sdxl"], real, tmp_path, **options))
