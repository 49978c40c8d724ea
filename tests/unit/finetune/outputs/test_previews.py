"""Sheets: what they show, and that an adapter is the same with and without them."""

import json
from pathlib import Path

import numpy as np
import pipelines
import pytest
from PIL import Image
from shell import TRAIN, command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from finetune.outputs import logs, monitor

SMALL = (
    "--data",
    "demo",
    "--classes",
    "apple",
    "--shots",
    5,
    "--steps",
    4,
    "--batch_size",
    2,
    "--precision",
    "fp32",
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """A folder with one run that shows everything, and one that shows nothing."""
    folder = tmp_path_factory.mktemp("sheets")
    base = pipelines.tiny(folder / "base")
    words = (*TRAIN, *SMALL, "--base", base, "--learning_rate", 0.1, "--ema_decay", 0.5)
    shown = ("--preview_every", 2, "--log_with", "tensorboard", "--validate_every", 2)
    command(folder, *words, *shown, "--output", "shown", "--export", "kohya")
    command(folder, *words, "--validate_every", 2, "--no_sheets", "--output", "bare")
    return folder


def test_an_adapter_is_the_same_byte_for_byte_with_and_without_sheets(outputs):
    shown, bare = (tensors(outputs / name / "apple.safetensors") for name in ("shown", "bare"))
    assert shown == bare
    assert {path.name for path in (outputs / "bare").iterdir()} == {"apple.safetensors", "logs", "README.md"}


def tensors(path: Path) -> bytes:
    """The bytes of a safetensors file behind its header, whose length stands in the first eight."""
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def test_previews_of_a_class_stand_at_their_steps_and_change(outputs):
    files = sorted((outputs / "shown" / "previews").iterdir())
    assert [path.name for path in files] == ["apple-000002.png", "apple-000004.png"]
    first, last = (np.asarray(Image.open(path), dtype=int) for path in files)
    assert first.shape == last.shape == (32, 4 * 32 + 3 * monitor.GAP, 3)
    assert np.abs(first - last).max() > 0


def test_the_last_preview_is_the_row_with_the_adapter(outputs):
    preview = np.asarray(Image.open(outputs / "shown" / "previews" / "apple-000004.png"), dtype=int)
    sheet = np.asarray(Image.open(outputs / "shown" / "apple-samples.png"), dtype=int)
    bottom = sheet[-monitor.GAP - 32 : -monitor.GAP, : preview.shape[1]]
    assert np.abs(bottom - preview).max() <= 1
    line = (len(sheet) - 2 * (32 + monitor.GAP)) // 2
    top = sheet[line : line + 32, : preview.shape[1]]
    assert np.abs(top - bottom).max() > 1


def test_previews_go_to_the_tracker(outputs):
    events = EventAccumulator(str(outputs / "shown" / "logs" / "orchard"))
    events.Reload()
    assert [image.step for image in events.Images("preview/apple")] == [2, 4]


def test_the_card_shows_the_pictures_and_the_use_in_every_tool(outputs):
    card = (outputs / "shown" / "README.md").read_text()
    for words in (
        "](apple-samples.png)",
        "](apple-loss.png)",
        "python -m generate --lora apple.safetensors",
        'pipe.load_lora_weights("apple.safetensors")',
        "copy `kohya/apple.safetensors` to `models/Lora/`",
        "a photo of apple <lora:apple:1>",
        "`models/loras/`",
    ):
        assert words in card, words
    bare = (outputs / "bare" / "README.md").read_text()
    assert ".png" not in bare
    assert "(written when trained with `--export kohya`)" in bare


def test_a_sheet_names_its_rows_and_keeps_its_pixels():
    red, blue = (Image.new("RGB", (20, 10), name) for name in ("red", "blue"))
    sheet = np.asarray(monitor.without_and_with({"a": [red, red]}, {"a": [blue, red]}))
    pixels = sheet.reshape(-1, 3)
    assert (pixels == (0, 0, 255)).all(1).sum() == 200
    assert (pixels == (255, 0, 0)).all(1).sum() == 600
    assert (pixels == 0).all(1).any()


def test_the_smooth_line_is_a_mean_over_the_last_steps():
    losses = np.arange(40.0)
    found = logs.smoothed(losses)
    assert found[0] == 0 and found[1] == 0.5
    assert found[39] == (38 + 39) / 2


def test_a_curve_is_drawn_with_and_without_held_out_losses(tmp_path):
    lines = [{"step": step, "loss": 1 / step} for step in range(1, 9)]
    for name, last in (("with", {"validation_loss": 0.5}), ("without", {})):
        log = tmp_path / f"{name}.jsonl"
        log.write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[-1] | last]))
        logs.draw_losses(log, tmp_path / f"{name}.png", "app$le_")
        assert Image.open(tmp_path / f"{name}.png").size[0] > 400
