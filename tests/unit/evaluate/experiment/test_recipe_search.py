"""`--search`: what is tried on an arm's own images, given up, gone on with after a stop, and taken."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pipelines
import pytest
import yaml
from planned import planned, sets
from shell import CLASSIFY, EVALUATE, GENERATE, command
from shell import TRAIN as TUNE

from classify.config import Classify
from classify.mixing import Mixing
from evaluate.config import Evaluate
from evaluate.experiment.mixtures import mix
from evaluate.experiment.own_generator import TuningError
from evaluate.experiment.recipe_search import Search
from evaluate.experiment.validation_search import ALONE, Candidate, chosen, of_recipe
from evaluate.generators import GENERATORS
from evaluate.records import records
from evaluate.report import recipe_files
from finetune.config import TrainLora
from generate.config import Generate
from orchard.cli import cli
from orchard.datasets import sources
from orchard.images.images import TRAIN

DIFFUSION = [name for name in GENERATORS if name not in ("gan", "vae")]
AMONG = ("untuned", "tuned")


def searched(**options):
    """The run that looks for a recipe."""
    return planned(shots=("4",), seeds=1, search=True, generators=AMONG, **options)[-1]


def losses(better: float, count: int = 8):
    """What a candidate is worth in four parts: the more the fewer of its images take part."""
    asked = []

    def of(candidate):
        asked.append(candidate)
        for _ in range(4):
            yield np.linspace(1.0, 1.2, count // 4) - better * (1 - candidate.share) * bool(candidate.share)

    return of, asked


def look(folder: Path, of, trials: int = 12, hours: float = 0.0):
    return Search(folder=folder, trials=trials, hours=hours).choose(searched(), of)


def test_no_images_and_every_generator_as_it_is_come_first_and_the_best_one_is_taken(tmp_path):
    of, asked = losses(better=0.5)
    found = look(tmp_path, of)
    assert asked[:3] == [ALONE, Candidate(generator="untuned"), Candidate(generator="tuned")]
    assert len(asked) == len(set(asked)) == 12
    record = found.record
    assert found.candidate.share == min(one.share for one in asked if one.share)
    assert record["chosen"] == found.candidate.label == min(record["tried"], key=record["tried"].get)
    assert record["tried"]["no synthetic images"] == pytest.approx(1.1)
    assert of_recipe(json.loads(json.dumps(record["recipe"]))) == found.candidate


def test_nothing_is_taken_where_nothing_is_better(tmp_path):
    of, _ = losses(better=0.0)
    found = look(tmp_path, of)
    assert found.candidate == ALONE
    assert found.record["chosen"] == "no synthetic images"
    assert found.counts({"apple": 9}) == {"apple": 0}


def test_a_recipe_that_is_clearly_worse_is_given_up_after_a_part_but_never_no_images(tmp_path):
    seen = []

    def of(candidate):
        for part in range(4):
            seen.append((candidate, part))
            yield np.full(8, 1.0 if not candidate.share else 3.0 + part)

    found = look(tmp_path, of, trials=4)
    assert max(part for candidate, part in seen if candidate == ALONE) == 3
    assert max(part for candidate, part in seen if candidate != ALONE) < 3
    assert list(found.record["tried"]) == ["no synthetic images"]
    assert "untuned" in found.record["given_up"] and found.record["untried"] == []


def test_a_generator_that_refuses_is_named_and_the_others_are_tried(tmp_path):
    asked = []

    def of(candidate):
        asked.append(candidate)
        if candidate.generator == "tuned":
            raise TuningError("no photo has a box", refused=True)
        yield np.array([1.0, 1.1, 0.9, 1.2])

    found = look(tmp_path, of, trials=5)
    assert found.record["untried"] == ["tuned (no photo has a box)"]
    assert [candidate.generator for candidate in asked].count("tuned") == 1
    assert len(asked) == 5
    look(tmp_path, of, trials=5)  # what was refused may have been mended
    assert [candidate.generator for candidate in asked[5:]] == ["tuned"]


def test_a_generator_that_breaks_ends_the_search_which_goes_on_with_it(tmp_path):
    of, asked = losses(better=0.5)

    def breaking(candidate):
        if candidate.generator == "tuned":
            raise TuningError("killed")
        yield from of(candidate)

    with pytest.raises(TuningError, match="killed"):
        look(tmp_path, breaking)
    assert asked == [ALONE, Candidate(generator="untuned")]
    look(tmp_path, of)
    assert asked[2] == Candidate(generator="tuned") and len(asked) == 12


def test_where_every_generator_refuses_there_is_no_answer(tmp_path, refused):
    def of(candidate):
        if candidate.share:
            raise TuningError("no room for it", refused=True)
        yield np.array([1.0, 1.1, 0.9, 1.2])

    with refused("no recipe could be tried", "no room for it"):
        look(tmp_path, of)


@pytest.mark.parametrize("stopped_at", [0, 1, 5])
def test_a_search_that_was_stopped_tries_only_what_is_left(tmp_path, stopped_at):
    of, asked = losses(better=0.5)

    def stopping(candidate):
        if len(asked) == stopped_at:
            raise KeyboardInterrupt
        yield from of(candidate)

    with pytest.raises(KeyboardInterrupt):
        look(tmp_path, stopping)
    assert len(asked) == stopped_at
    found = look(tmp_path, of)
    assert asked[:3] == [ALONE, Candidate(generator="untuned"), Candidate(generator="tuned")]
    assert len(asked) == len(set(asked)) == 12
    again, count = look(tmp_path, of), len(asked)
    assert again == found
    assert len(asked) == count


def test_a_file_of_trials_that_is_cut_off_goes_on_and_a_damaged_one_is_named(tmp_path, refused):
    of, _ = losses(better=0.5)
    found = look(tmp_path, of)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert len(look(tmp_path, of).record["tried"]) == len(found.record["tried"])
    first, *others = whole.splitlines(keepends=True)
    for bad in (
        b"garbage\n" + whole,
        b'{"params": {"generator": "tuned"}, "losses": [1, 2, 3, 4, 5, 6, 7, 8]}\n',
        first + b'{"params": {"generator": "none"}, "losses": [NaN]}\n',
        first + others[0].replace(b"[", b"[0.5, ", 1),
        first.replace(b"none", b"never"),
        b"\xff\xfe\n",
        b"[]\n",
    ):
        path.write_bytes(bad)
        with refused(str(path), "remove it to search anew"):
            look(tmp_path, of)


def test_a_search_ends_with_its_hours_but_for_what_comes_first(tmp_path):
    of, asked = losses(better=0.5)
    look(tmp_path, of, hours=1e-9)
    assert [candidate.generator for candidate in asked] == ["", *AMONG]


def test_no_images_are_tried_to_their_end_where_everything_is_better(tmp_path):
    def of(candidate):
        for _ in range(4):
            yield np.linspace(3.0, 3.1, 8) if candidate == ALONE else np.linspace(1.0, 1.1, 8)

    def stopping(candidate):
        if candidate == ALONE:
            raise KeyboardInterrupt
        yield from of(candidate)

    with pytest.raises(KeyboardInterrupt):
        look(tmp_path, stopping)
    assert look(tmp_path, of).record["tried"]["no synthetic images"] == pytest.approx(3.05)


def test_the_space_has_what_a_generator_has_a_use_for(tmp_path):
    of, asked = losses(better=0.0)
    look(tmp_path, of, trials=60)
    untuned = [one for one in asked if one.generator == "untuned"]
    tuned = [one for one in asked if one.generator == "tuned"]
    assert {one.adapter_weight for one in untuned} == {1.0}
    assert {one.adapter_weight for one in tuned} > {1.0}
    assert {one.mixing.name for one in asked} == {"union", "weight", "batch", "synthetic_first"}
    assert {one.guidance for one in tuned} > {None}


def test_a_recipe_asks_the_commands_for_what_it_says():
    run = searched()
    source = run.candidates["tuned"].asked(
        Candidate(generator="tuned", guidance=1.5, keep="hard").sampling, 0.5
    )
    assert source.weight == 0.5
    assert source.adapters == run.candidates["tuned"].adapters
    assert source.folder != run.candidates["tuned"].folder
    words = [str(word) for word in source._generate_options(Path("p"))]
    assert words[-8:] == [
        *("--guidance", "1.5", "--candidates", "3", "--keep", "hard"),
        *("--screen_classifier", str(source.folder / "classifier")),
    ]
    untuned = run.candidates["untuned"].asked(("--guidance", "3"), 1.0)
    assert not untuned.generator.sees_photos
    assert run.candidates["untuned"].asked(Candidate(keep="hard").sampling, 1.0).generator.sees_photos


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trials": 0}, ("--trials 0: give 1 or more",)),
        ({"trials": 9}, ("--trials 9: goes with --search",)),
        ({"hours": 2.0}, ("--hours 2: goes with --search",)),
        ({"search": True, "hours": float("inf")}, ("--hours inf", "to a million")),
        ({"search": True, "design": "substitute"}, ("--design substitute", "leave it out")),
        ({"search": True, "generators": ("none",)}, ("--generators none", "name some")),
        ({"hours": -1.0}, ("--hours -1",)),
        ({"search": True, "generators": ("auto", "tuned")}, ("--generators auto", "--search")),
        ({"search": True, "generators": ("gan", "tuned")}, ("--generators gan", "leave it out")),
        ({"search": True, "mixing": "batch"}, ("--mixing batch", "leave it out")),
        ({"search": True, "controls": ("strong",)}, ("--controls",)),
        ({"search": True, "model": "features:cnn"}, ("--model features:cnn",)),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(options, words, refused):
    with refused(*words):
        Evaluate(**options).require_valid()


def test_a_search_stands_beside_the_real_images_alone_in_every_design():
    for options in ({"shots": ("4",)}, {"folds": 2}, {}):
        arms = {run.arm.generator for run in planned(seeds=1, search=True, shares=(0.5,), **options)}
        assert arms == {"none", f"search of {', '.join(DIFFUSION)}"}


def record(candidate: Candidate, **changes) -> dict:
    tried = {ALONE.label: 0.5, candidate.label: 0.3}
    choice = {
        "chosen": candidate.label,
        "tried": tried,
        "errors": {candidate.label: 0.1},
        "untried": ["repaint:object (no boxes)"],
        "given_up": ["img2img"],
        "recipe": asdict(candidate),
    }
    run = searched()
    return {**run.identity, "n_real": 12, "n_synthetic": 75, "classes": ["apple", "pear"], **changes} | {
        "mixing_choice": choice
    }


@pytest.mark.parametrize(
    ("candidate", "sections"),
    [
        (Candidate(generator="untuned", guidance=1.5), {"generate", "evaluate"}),
        (
            Candidate(generator="context", adapter_weight=0.5, mixing=Mixing(name="batch", real_weight=0.3)),
            {"finetune", "generate", "evaluate"},
        ),
        (Candidate(generator="img2img", keep="hard"), {"finetune", "classify", "generate", "evaluate"}),
    ],
)
def test_what_was_found_is_a_recipe_that_the_commands_read(candidate, sections, tmp_path):
    asked = {
        "data": "photos",
        "search": True,
        "shots": ("4",),
        "flip": False,
        "precision": "fp32",
        "steps": 30,
    }
    config = Evaluate(**asked, model="resnet18", output=tmp_path)
    failed, line = recipe_files.write([record(candidate)], config, sets())
    assert "could not be tried: repaint:object (no boxes)" in failed
    (path,) = (tmp_path / "recipes").iterdir()
    assert str(path) in line and "0.200 ± 0.100" in line
    assert set(yaml.safe_load(path.read_text())) == sections
    kinds = {"finetune": TrainLora, "classify": Classify, "generate": Generate, "evaluate": Evaluate}
    found = {name: cli.parse(kinds[name], ["--config", str(path)], name) for name in sections}
    for one in found.values():
        one.require_valid()
        assert one.precision == "fp32"
        assert one.data == "photos" or one.train == one.test == "photos"
    generate, evaluate = found["generate"], found["evaluate"]
    # 75 synthetic images for 12 real ones, so 125 for the 20 apples of the whole training split.
    assert evaluate.ratios == (str(round(12 / 87, 4)),)
    needed = mix("augment", round(12 / 87, 4), {"apple": 20, "pear": 16}).synthetic
    assert generate.count == max(needed.values()) == 125
    assert (evaluate.steps, evaluate.model) == (30, "resnet18")
    assert evaluate.mixing == candidate.mixing.name
    assert (evaluate.real_weight == 0.3) == (candidate.mixing.name == "batch")
    if candidate.generator == "untuned":
        assert generate.classes == ("apple", "pear") and str(generate.guidance) == "1.5"
    if candidate.generator == "context":
        assert generate.lora == ("apple.safetensors:0.5", "pear.safetensors:0.5")
        assert (found["finetune"].captions, generate.contexts) == ("context", "shuffled")
        assert not found["finetune"].flip and found["finetune"].batch_size == 16
    if candidate.keep:
        assert (generate.keep, generate.candidates) == ("hard", 3)
        assert (str(generate.screen_classifier), generate.image_guidance) == ("classifier", "photos")


def test_where_nothing_pays_no_recipe_is_written_but_it_is_said(tmp_path):
    _, line = recipe_files.write([record(ALONE)], Evaluate(search=True, output=tmp_path), sets())
    assert "none pays" in line
    assert not (tmp_path / "recipes").exists()


def test_a_choice_that_was_recorded_is_taken_again():
    run = searched()
    taken = Candidate(generator="tuned", share=0.25, keep="diverse", mixing=Mixing(name="weight"))
    assert chosen(record(taken), run).candidate == taken


def test_sections_of_a_recipe_do_not_mix_with_options(tmp_path, refused):
    path = tmp_path / "recipe.yaml"
    for text, words in (
        ("generate:\n  count: 3\nseed: 1\n", ("seed stands beside generate",)),
        ("finetune:\n  steps: 3\n", ("no section generate, only finetune",)),
        ("generate: 3\n", ("generate: a section is a list",)),
    ):
        path.write_text(text)
        with refused(str(path), *words):
            cli.parse(Generate, ["--config", str(path)], "generate")
    path.write_text("generate:\n  count: 3\n  vary:\n    light: [dim, bright]\nfinetune:\n  steps: 3\n")
    assert cli.parse(Generate, ["--config", str(path)], "generate").count == 3
    assert sets().train.classes == ("apple", "pear")


@pytest.mark.slow
def test_the_commands_of_a_recipe_run_as_it_says(tmp_path):
    """With a recipe that was not found, but is written as one that was."""
    pipelines.tiny(tmp_path / "base")
    asked = {"data": "demo", "base": "base", "shots": ("4",), "arm_steps": 1, "steps": 2, "batch_size": 4}
    config = Evaluate(**asked, search=True, precision="fp32", output=tmp_path)
    candidate = Candidate(generator="tuned", adapter_weight=0.5, mixing=Mixing(name="batch"), keep="hard")
    given = replace(sets(train=sources.load("demo").of(TRAIN)), base=SimpleNamespace(resolution=32))
    made = record(candidate, classes=list(given.train.classes), n_real=12, n_synthetic=6)
    recipe_files.write([made], config, given)
    (path,) = (tmp_path / "recipes").iterdir()
    for words in (TUNE, CLASSIFY, GENERATE, EVALUATE):
        command(tmp_path, *words, "--config", path)
    asked = ("design", "mixing", "n_real", "n_synthetic", "steps")
    runs = [tuple(one[name] for name in asked) for one in records.read(tmp_path / "evaluation")]
    assert set(runs) == {("augment", "batch 0.8", 120, 60, 2)}
