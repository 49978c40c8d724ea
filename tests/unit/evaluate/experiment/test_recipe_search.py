"""`--search`: what is tried on an arm's own images, given up, gone on with after a stop, and taken."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from planned import planned, sets

from classify.config import Classify
from classify.mixing import Mixing
from evaluate.config import Evaluate
from evaluate.experiment.own_generator import TuningError
from evaluate.experiment.recipe_search import Search
from evaluate.experiment.validation_search import ALONE, Candidate, chosen, of_recipe
from evaluate.generators import GENERATORS
from evaluate.report import recipe_files
from finetune.config import TrainLora
from generate.config import Generate
from orchard.cli import cli

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


def test_a_recipe_that_is_clearly_worse_is_given_up_after_a_part(tmp_path):
    seen = []

    def of(candidate):
        for part in range(4):
            seen.append((candidate, part))
            yield np.full(8, 1.0 if not candidate.share else 3.0 + part)

    found = look(tmp_path, of, trials=4)
    assert max(part for candidate, part in seen if candidate == ALONE) == 3
    assert max(part for candidate, part in seen if candidate != ALONE) < 3
    assert list(found.record["tried"]) == ["no synthetic images"]
    assert "untuned (given up as worse)" in found.record["untried"]


def test_a_generator_that_cannot_make_images_is_named_and_the_others_are_tried(tmp_path):
    def of(candidate):
        if candidate.generator == "tuned":
            raise TuningError("no photo has a box")
        yield np.array([1.0, 1.1, 0.9, 1.2])

    found = look(tmp_path, of, trials=5)
    assert "tuned (no photo has a box)" in found.record["untried"]
    assert any(name.startswith("untuned") for name in found.record["tried"])


def test_a_search_that_was_stopped_tries_only_what_is_left(tmp_path):
    of, asked = losses(better=0.5)

    def stopping(candidate):
        if len(asked) == 5:
            raise KeyboardInterrupt
        yield from of(candidate)

    with pytest.raises(KeyboardInterrupt):
        look(tmp_path, stopping)
    before = [*asked]
    found = look(tmp_path, of)
    assert before == asked[:5]
    assert len(asked) == len(set(asked)) == 12
    again, count = look(tmp_path, of), len(asked)
    assert again == found
    assert len(asked) == count


def test_a_search_ends_with_its_hours_but_for_what_comes_first(tmp_path):
    of, asked = losses(better=0.5)
    look(tmp_path, of, hours=1e-9)
    assert [candidate.generator for candidate in asked] == ["", *AMONG]


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
    for options in ({"shots": ("4",)}, {"folds": 2}, {"design": "augment"}):
        arms = {run.arm.generator for run in planned(seeds=1, search=True, shares=(0.5,), **options)}
        assert arms == {"none", f"search of {', '.join(DIFFUSION)}"}


def record(candidate: Candidate, **changes) -> dict:
    tried = {ALONE.label: 0.5, candidate.label: 0.3}
    choice = {
        "chosen": candidate.label,
        "tried": tried,
        "errors": {candidate.label: 0.1},
        "untried": ["img2img (given up as worse)"],
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
    config = Evaluate(data="photos", search=True, shots=("4",), flip=False, output=tmp_path, precision="fp32")
    (line,) = recipe_files.write([record(candidate)], config)
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
    assert generate.count == 38
    assert evaluate.ratios == (str(round(12 / 87, 4)),)
    assert evaluate.mixing == candidate.mixing.name
    assert (evaluate.real_weight == 0.3) == (candidate.mixing.name == "batch")
    if candidate.generator == "untuned":
        assert generate.classes == ("apple", "pear") and str(generate.guidance) == "1.5"
    if candidate.generator == "context":
        assert generate.lora == ("apple.safetensors:0.5", "pear.safetensors:0.5")
        assert (found["finetune"].captions, generate.contexts) == ("context", "shuffled")
        assert not found["finetune"].flip
    if candidate.keep:
        assert (generate.keep, generate.candidates) == ("hard", 3)
        assert (str(generate.screen_classifier), generate.image_guidance) == ("classifier", "photos")


def test_where_nothing_pays_no_recipe_is_written_but_it_is_said(tmp_path):
    (line,) = recipe_files.write([record(ALONE)], Evaluate(search=True, output=tmp_path))
    assert "none pays; of 1 recipes" in line
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
