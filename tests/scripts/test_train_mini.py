"""`scripts/train_mini.py` from its first stage to the pipeline, a second or two for each."""

import io
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import run_options
import train_mini
from mini import autoencoder, data, decoder, denoiser, export, loop, perception, quality

NAMES = ("apple", "banana", "pear")
STAGES = ("features", "autoencoder", "decoder", "denoiser")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Six photos of three classes as `datasets` writes them."""
    rng = np.random.default_rng(0)
    rows = []
    for label in (0, 1, 2, 0, 1, 2):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(file, "PNG")
        rows.append({"image": {"bytes": file.getvalue()}, "label": label, "photo_box": [0, 0, 50, 40]})
    described = json.dumps({"info": {"features": {"label": {"names": NAMES}}}})
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": described})
    folder = tmp_path_factory.mktemp("fruits")
    pq.write_table(table, folder / "train.parquet")
    return folder


@pytest.fixture
def train(photos, tmp_path, monkeypatch):
    """``train(name=value, …)`` runs the script with these options beside small defaults."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    for module in (perception, autoencoder, decoder, denoiser):
        monkeypatch.setattr(module, "BATCH", 2)
    monkeypatch.setattr(train_mini, "SHOWN", 2)
    monkeypatch.setattr(quality, "PHOTOS", 4)
    monkeypatch.setattr(export, "sample", partial(_sample, monkeypatch))
    # More threads than cores, beside other tests, would wait for each other.
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)

    def train(**options: object) -> None:
        small = {"data": photos, "images": 16, "work": tmp_path / "work", "out": tmp_path / "out"}
        words = [str(word) for name, value in (small | options).items() for word in (f"--{name}", value)]
        monkeypatch.setattr(sys, "argv", ["train_mini.py", *words, "--focus", "apple", "banana"])
        train_mini.main()

    return train


def _sample(monkeypatch, pipe, label: str, count: int) -> np.ndarray:
    """Pictures of a pipeline that is whole, in one step."""
    image = pipe([label] * count, num_inference_steps=1, guidance_scale=1.0, output_type="np").images
    return (np.nan_to_num(image) * 255).round().astype(np.uint8)


def steps(work: Path) -> dict[str, int]:
    return {name: loop.taken(work / f"{name}.pt")[1] for name in STAGES if (work / f"{name}.pt").exists()}


def test_all_stages_end_in_a_pipeline_that_says_what_it_has_had_and_can_be_trained_further(train, tmp_path):
    train()
    work, out = tmp_path / "work", tmp_path / "out"
    for name in ("autoencoder", "decoder", "preview"):
        assert list(work.glob(f"{name}-*.png")), name
    first = json.loads((out / export.HISTORY).read_text())
    assert {name: stage["steps"] for name, stage in first["stages"].items()} == steps(work)
    assert first["runs"] == [
        {"images": 2 * steps(work)["denoiser"], "focus": ["apple", "banana"], "share": 0.5,
         "framing": data.FRAMING}
    ]  # fmt: skip
    text = (out / "README.md").read_text()
    assert f"{first['runs'][0]['images']} images seen by the denoiser" in text
    assert "apple " in text and "banana " in text
    # Written over its own start, and once more when it is done: counted once.
    more = {"start": out, "work": tmp_path / "more"}
    train(**more)
    train(**more)
    second = json.loads((out / export.HISTORY).read_text())
    assert second["runs"][0] == first["runs"][0] and len(second["runs"]) == 2
    assert second["stages"]["autoencoder"] == first["stages"]["autoencoder"]
    assert second["stages"]["denoiser"]["steps"] == sum(run["images"] for run in second["runs"]) / 2
    assert not list(tmp_path.glob("out.*"))


def test_a_run_stopped_after_each_checkpoint_goes_on_and_keeps_its_words(train, tmp_path, monkeypatch):
    save, stopped = loop.save, set()

    def stop(path: Path, clock: loop.Clock, **parts: object) -> None:
        save(path, clock, **parts)
        if path not in stopped:
            stopped.add(path)
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save", stop)
    before: dict[str, int] = {}
    words = set()
    for stage in STAGES:
        with pytest.raises(SystemExit, match="130"):
            train()
        found = steps(tmp_path / "work")
        assert [*found][-1] == stage and before.items() <= found.items()
        before = found
        words |= {path.read_bytes() for path in (tmp_path / "work").glob("tokenizer/tokenizer.json")}
    train()
    assert steps(tmp_path / "work") == before
    assert len(words) == 1
    assert (tmp_path / "out" / "model_index.json").exists()


def test_what_a_kill_left_half_written_is_made_anew(train, tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    train()
    (work / "latents.pt").unlink()
    (work / "latents.pt.part").write_bytes(b"half")
    (work / "pictures.npz").unlink()
    (work / "pictures.npz.part").write_bytes(b"half")
    out.rename(tmp_path / "out.old")
    (tmp_path / "out.part").mkdir()
    train()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "work"]
    assert not list(work.glob("*.part"))


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_never_kept(tmp_path, refused, loss):
    clock = loop.Clock(name="decoder", steps=60, batch_size=1)
    ticks = loop.ticks(clock, tmp_path / "log.jsonl")
    next(ticks)
    clock.losses = {"l1": 0.5}
    next(ticks)
    clock.losses = {"l1": loss}
    with refused("decoder: loss is not finite at step 2", "goes on there"):
        next(ticks)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": 0}, "--images 0"),
        ({"images": -1}, "--images -1"),
        ({"focus_share": 1.5}, "--focus_share 1.5"),
        ({"focus_share": "nan"}, "--focus_share nan"),
        ({"start": "nowhere"}, "--start nowhere: no training.json there"),
        ({"data": "nowhere"}, "--data nowhere: no Parquet files there"),
        ({"apart": "./nowhere"}, "--apart"),
    ],
)
def test_what_cannot_end_well_is_refused_before_anything_is_written(train, tmp_path, capsys, options, words):
    with pytest.raises(SystemExit, match="2"):
        train(**options)
    assert words in capsys.readouterr().err
    assert not any((tmp_path / name).exists() for name in ("work", "out"))


def test_a_class_that_is_not_there_is_named(photos, tmp_path, monkeypatch, capsys):
    words = ["--data", photos, "--work", tmp_path / "work", "--out", tmp_path / "out", "--focus", "aple"]
    monkeypatch.setattr(sys, "argv", ["train_mini.py", *map(str, words)])
    with pytest.raises(SystemExit, match="2"):
        train_mini.main()
    assert "--focus aple: not among the classes of --data: apple, banana, pear" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_photos_without_labels_and_a_damaged_start_are_named(train, tmp_path, capsys):
    (tmp_path / "plain").mkdir()
    pq.write_table(pa.table({"label": [0]}), tmp_path / "plain" / "a.parquet")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / export.HISTORY).write_text('{"stages": {}, "runs": []}')
    for options, words in (
        ({"data": tmp_path / "plain"}, "a.parquet: no class labels there"),
        ({"start": tmp_path / "damaged"}, "damaged: cannot be loaded"),
    ):
        with pytest.raises(SystemExit, match="2"):
            train(**options)
        assert words in capsys.readouterr().err


def test_a_folder_belongs_to_one_set_of_options(tmp_path, refused):
    run_options.require_same(tmp_path, {"seed": 0, "focus": ["apple"]}, "--work")
    run_options.require_same(tmp_path, {"seed": 0, "focus": ["apple"]}, "--work")
    with refused("--work", "seed 0 (requested: 1)", "choose another --work"):
        run_options.require_same(tmp_path, {"seed": 1, "focus": ["apple"]}, "--work")
    (tmp_path / run_options.OPTIONS).write_text("")
    with refused("cannot be read"):
        run_options.require_same(tmp_path, {"seed": 0}, "--work")
