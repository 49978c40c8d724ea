"""Arms of several generators, made by the real commands on a tiny base: ledgers, sharing, the page."""

import csv
import json
from pathlib import Path

import pipelines
import pytest
from pages import Page
from shell import EVALUATE, command

from orchard import shards

pytestmark = pytest.mark.slow

WORDS = ("--data", "demo", "--steps", 3, "--batch_size", 4, "--precision", "fp32", "--size", 32, "--seeds", 1)
OWN = ("--base", "base", "--arm_steps", 1, "--arm_count", 6, "--shots", 2)
GENERATORS = ("--generators", "auto", "none", "untuned", "tuned", "img2img")
GUIDED = '"generator":"img2img"'
NAMES = ["none", "untuned", "tuned", "img2img", "auto of untuned, tuned, img2img"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("generators")
    pipelines.tiny(folder / "base")
    command(folder, *EVALUATE, *WORDS, *OWN, "--generators", *NAMES[:-1])
    command(folder, *EVALUATE, *WORDS, *OWN, *GENERATORS)
    return folder


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "evaluation" / "records.jsonl").read_text().splitlines()]


IMG2IMG = ("--image_guidance", "PHOTOS", "--strength", "0.7")


def made(folder: Path) -> dict[tuple, Path]:
    """Folder of each arm's images, by what generate was asked for besides and the photos in the ledger."""
    notes = {path.parent: json.loads(path.read_text()) for path in folder.glob("evaluation/arms/*/arm.json")}
    seen = {path: shards.read_manifest(path / "shards")["trained_on"] for path in notes}
    return {(tuple(note.get("sampling", ())), len(seen[path])): path for path, note in notes.items()}


def test_every_generator_has_a_run_on_the_same_real_images(folder):
    found = lines(folder)
    assert [record["generator"] for record in found] == NAMES
    assert [record["n_real"] for record in found] == [6] * 5
    assert [record["n_synthetic"] for record in found[:4]] == [0, 18, 18, 18]
    assert [record["generator_seed"] for record in found] == [None, 0, 0, 0, 0]
    assert len({record["train_files"] for record in found[:4]}) == 4


def test_the_choice_is_in_the_record_and_its_run_is_that_of_the_chosen_generator(folder):
    found = {record["generator"]: record for record in lines(folder)}
    auto = found[NAMES[-1]]
    choice = auto["mixing_choice"]
    assert list(choice["tried"]) == ["no synthetic images", "untuned", "tuned", "img2img"]
    losses = choice["tried"]
    best = min(list(losses)[1:], key=losses.__getitem__)
    won = losses["no synthetic images"] - losses[best] > choice["errors"][best]
    assert choice["chosen"] == (best if won else "no synthetic images")
    chosen = found[{"no synthetic images": "none"}.get(choice["chosen"], choice["chosen"])]
    assert auto["train_files"] == chosen["train_files"]
    assert auto["predictions"] == chosen["predictions"]


def test_ledgers_name_the_arms_photos_alone_without_those_to_choose_by_and_none_for_the_base(folder):
    assert set(made(folder)) == {((), 0), ((), 6), (IMG2IMG, 6), ((), 3), (IMG2IMG, 3)}
    assert not list(folder.glob("evaluation/arms/*/photos"))


def test_adapters_are_trained_once_and_what_is_missing_is_made_again_from_them(folder):
    assert len(list(folder.glob("evaluation/arms/*/adapters"))) == 1 + 2
    guided = made(folder)[IMG2IMG, 6]
    before = {path: path.stat().st_mtime_ns for path in folder.glob("evaluation/arms/*/[as]*/**/*.*")}
    rows = [shards.rows_of(path) for path in sorted(guided.glob("shards/data/*"))]
    (guided / "shards" / "manifest.json").unlink()
    records = folder / "evaluation" / "records.jsonl"
    whole = records.read_text()
    records.write_text("".join(line for line in whole.splitlines(True) if GUIDED not in line))
    command(folder, *EVALUATE, *WORDS, *OWN, *GENERATORS)
    after = {path: path.stat().st_mtime_ns for path in folder.glob("evaluation/arms/*/[as]*/**/*.*")}
    assert all(guided in path.parents for path in before if after[path] != before[path])
    assert [shards.rows_of(path) for path in sorted(guided.glob("shards/data/*"))] == rows
    plain = [{n: v for n, v in r.items() if "seconds" not in n and n != "commit"} for r in lines(folder)]
    again = next(record for record in plain if record["generator"] == "img2img")
    first = next(json.loads(line) for line in whole.splitlines() if GUIDED in line)
    assert again == {name: first[name] for name in again}


def test_page_and_files_set_the_generators_side_by_side(folder):
    page = Page((folder / "evaluation" / "report.html").read_text(encoding="utf-8"))
    (table,) = page.named("generators")
    assert [row[0].split()[0] for row in table[1:]] == ["none", "untuned", "tuned", "img2img", "auto"]
    with (folder / "evaluation" / "arms.csv").open(encoding="utf-8") as file:
        arms = {row["generator"]: row for row in csv.DictReader(file)}
    assert list(arms) == NAMES
    for name in ("untuned", "tuned", "img2img"):
        assert float(arms[name]["seconds_per_image"]) > 0
        assert 0 <= float(arms[name]["coverage"]) <= 1
        assert float(arms[name]["same_real_points"]) == pytest.approx(float(arms[name]["change_points"]))
    kept = json.loads((folder / "evaluation" / "analysis.json").read_text())["generators"]
    assert [one["row"]["arm"]["generator"] for one in kept] == NAMES
    (choices,) = page.named("choices")
    assert choices[0][1:] == ["no synthetic images", "untuned", "tuned", "img2img"]


def test_another_page_takes_the_generators_numbers_from_this_one(folder):
    ratio = ("--ratios", 1, *OWN[:4], "--generators", "untuned", "--output", "other")
    command(folder, *EVALUATE, *WORDS, *ratio, "--also", "evaluation")
    with (folder / "other" / "arms.csv").open(encoding="utf-8") as file:
        arms = {row["generator"]: row for row in csv.DictReader(file) if row["shots"]}
    assert float(arms["tuned"]["coverage"]) >= 0


def test_generators_that_look_at_boxes_find_those_of_the_arms_photos(folder):
    """Of photos that have none on disk: the arm's folder gets them."""
    kinds = ("context", "repaint:background", "repaint:centre")
    command(folder, *EVALUATE, *WORDS, *OWN, "--generators", *kinds, "--output", "boxes")
    records = [json.loads(line) for line in (folder / "boxes" / "records.jsonl").read_text().splitlines()]
    assert [(record["generator"], record["n_synthetic"]) for record in records] == [
        (kind, 18) for kind in kinds
    ]
    sets = {}
    for path in folder.glob("boxes/arms/*/shards"):
        rows = [row for file in path.glob("data/train-*") for row in shards.rows_of(file)]
        sets[rows[0]["mask"] or "none"] = rows
    assert set(sets) == {"none", "boxes", "centre"}
    assert all(row["box"] for row in sets["boxes"])
    assert len({row["prompt"] for row in sets["none"] if row["label"] == 0}) > 1


def test_a_gan_and_a_vae_are_trained_on_the_arms_photos_alone_and_their_cost_is_on_the_page(folder):
    command(folder, *EVALUATE, *WORDS, *OWN, "--generators", "none", "gan", "vae", "--output", "models")
    records = [json.loads(line) for line in (folder / "models" / "records.jsonl").read_text().splitlines()]
    assert [(record["generator"], record["n_synthetic"]) for record in records] == [
        ("none", 0), ("gan", 18), ("vae", 18),
    ]  # fmt: skip
    assert {path.stem for path in folder.glob("models/arms/*/adapters/*.safetensors")} == {"gan", "vae"}
    seen = [shards.read_manifest(path.parent) for path in folder.glob("models/arms/*/shards/manifest.json")]
    assert [len(manifest["trained_on"]) for manifest in seen] == [6, 6]
    with (folder / "models" / "arms.csv").open(encoding="utf-8") as file:
        arms = {row["generator"]: row for row in csv.DictReader(file)}
    assert all(float(arms[name]["seconds_to_train"]) > 0 for name in ("gan", "vae"))
    page = Page((folder / "models" / "report.html").read_text(encoding="utf-8"))
    (table,) = page.named("generators")
    assert table[0][-2:] == ["s per image", "s to train"]
    before = {path: path.stat().st_mtime_ns for path in folder.glob("models/arms/*/adapters/*.safetensors")}
    command(folder, *EVALUATE, *WORDS, *OWN, "--generators", "none", "gan", "vae", "--output", "models")
    assert before == {path: path.stat().st_mtime_ns for path in before}
