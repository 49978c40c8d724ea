"""What makes an arm's images: the table of generators, the arms of each, what they share, what auto tries."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from planned import hashes, planned, sets, some

from evaluate.config import Evaluate
from evaluate.experiment import image_sets
from evaluate.experiment.sweep import share
from evaluate.experiment.validation_search import UNTRIED, candidates, choose, parts
from evaluate.generators import GENERATORS, NAMES, TUNED
from evaluate.records import records
from orchard.images.images import sha256

ALL = ("none", *GENERATORS)


def made(runs, **wanted) -> dict:
    """Generator -> its images, of the first run of each."""
    found = {}
    for run in runs:
        if run.source is not None and all(getattr(run.arm, name) == value for name, value in wanted.items()):
            found.setdefault(run.arm.generator, run.source)
    return found


def asked(source) -> tuple[list[str], list[str]]:
    """Words for finetune, if it is called at all, and for generate."""
    tuning = source._finetune_options(Path("p"), Path("a")) if source.adapters else []
    return [str(word) for word in tuning], [str(word) for word in source._generate_options(Path("p"))]


def test_every_generator_asks_for_what_sets_it_apart():
    sources = made(planned(shots=("2",), seeds=1, generators=ALL))
    assert list(sources) == list(GENERATORS)
    models = {name: sources.pop(name) for name in ("gan", "vae")}
    usual = asked(sources[TUNED])
    extra = {}
    for name, source in sources.items():
        tuning, sampling = asked(source)
        assert sampling[2:] == [*usual[1][2:], *sampling[len(usual[1]) :]]
        extra[name] = tuning[len(usual[0]) :], sampling[len(usual[1]) :]
    captions = ["--captions", "context"]
    assert extra == {
        "untuned": ([], []),
        "tuned": ([], []),
        "dora": (["--method", "dora"], []),
        "full": (["--method", "full", "--learning_rate", "1e-5"], []),
        "textual_inversion": (["--method", "textual_inversion", "--learning_rate", "5e-3"], []),
        "context": (captions, ["--contexts", "shuffled"]),
        "context:own": (captions, ["--contexts", "own"]),
        "repaint:background": ([], ["--repaint", "background"]),
        "repaint:object": ([], ["--repaint", "object"]),
        "repaint:centre": ([], ["--repaint", "centre"]),
        "repaint:outpaint": ([], ["--repaint", "outpaint"]),
        "img2img": ([], ["--image_guidance", "p", "--strength", "0.7"]),
    }
    for source in models.values():
        tuning, sampling = asked(source)
        assert sampling[2:] == [*usual[1][2:], "--screens", "none"]
        assert tuning[4:] == [
            *("--size", "64", "--seed", "0", "--fit", "pad", "--steps", "1500", "--batch_size", "4"),
            *("--precision", "fp32"),
        ]


def test_a_gan_or_vae_is_one_model_of_all_classes_and_hangs_on_no_base():
    sources = made(planned(shots=("2",), seeds=1, generators=("gan", "vae", "tuned")))
    other = made(
        planned(
            sets(base=SimpleNamespace(name="mini", digest="e", resolution=64)),
            shots=("2",),
            seeds=1,
            generators=("gan", "vae", "tuned"),
        )
    )
    assert {name for name in sources if sources[name].folder == other[name].folder} == {"gan", "vae"}
    assert sources["gan"].generator.trainer == "finetune.train_gan"
    assert sources["gan"].folder != sources["vae"].folder


def test_a_low_shot_arm_comes_once_by_each_generator_on_the_same_real_images():
    runs = planned(shots=("2,4",), seeds=1, generators=("none", "untuned", "tuned"), arm_count=7)
    assert [(r.arm.shots, r.arm.generator, sum(r.arm.mixture.synthetic.values())) for r in runs] == [
        (2, "none", 0), (2, "untuned", 14), (2, "tuned", 14),
        (4, "none", 0), (4, "untuned", 14), (4, "tuned", 14),
    ]  # fmt: skip
    assert len({frozenset(hashes(run.real)) for run in runs}) == 2
    assert len({run.key for run in runs}) == len(runs)


def test_mixtures_come_by_each_generator_and_their_real_part_alone():
    runs = planned(folds=2, seeds=1, shares=(1.0, 0.5), generators=("none", "untuned", "tuned"))
    found = [(run.arm.mixture.ratio, run.arm.generator) for run in runs if run.arm.fold == 0]
    assert found == [(1.0, "none"), (0.5, "none"), (0.5, "untuned"), (0.5, "tuned")]
    assert len({frozenset(hashes(run.real)) for run in runs if run.arm.mixture.ratio == 0.5}) == 2
    added = planned(seeds=1, shares=(0.5,), design="augment", generators=("none", "untuned"))
    assert [(run.arm.mixture.ratio, run.arm.generator) for run in added] == [(1.0, "none"), (0.5, "untuned")]


def test_in_the_ratio_sweep_all_runs_share_generators_of_the_training_split():
    runs = planned(seeds=3, shares=(0.5, 0.0), generators=("tuned",))
    (source,) = {run.source.name: run.source for run in runs}.values()
    assert hashes(source.real.photos) == hashes(sets().train.photos)
    assert source.count == 20
    assert {run.identity["generator_seed"] for run in runs} == {0}
    assert len({run.key for run in runs}) == 6


def test_untuned_images_serve_every_number_of_shots_and_every_fold_of_a_generator_seed():
    low = planned(
        shots=("2,4",), seeds=2, vary_seeds=("subset", "classifier"), generators=("untuned", "tuned")
    )
    folds = planned(folds=3, seeds=1, shares=(0.5,), generators=("untuned", "tuned"))
    names = Counter((run.arm.generator, run.source.name) for run in (*low, *folds))
    assert sorted((by, count) for (by, _), count in names.items()) == [("tuned", 1)] * 7 + [("untuned", 7)]
    other = planned(shots=("2",), seeds=2, vary_seeds=("classifier", "generator"), generators=("untuned",))
    assert len({run.source.name for run in other}) == 2


def test_generators_of_equal_tuning_share_adapters_and_each_has_images_of_its_own():
    sources = made(planned(shots=("2",), seeds=1, generators=ALL))
    assert len({source.folder for source in sources.values()}) == len(GENERATORS)
    by_adapters = Counter(source.adapters for source in sources.values())
    assert by_adapters == {
        None: 1,
        sources[TUNED].folder / "adapters": 6,
        sources["context"].adapters: 2,
        sources["gan"].adapters: 1,
        sources["vae"].adapters: 1,
        sources["dora"].adapters: 1,
        sources["full"].adapters: 1,
        sources["textual_inversion"].adapters: 1,
    }
    assert sources["context"].adapters.parent not in {source.folder for source in sources.values()}


def test_the_folder_of_a_tuned_arm_is_the_one_it_had_before_there_were_other_generators():
    source = made(planned(shots=("2",), seeds=1))[TUNED]
    assert sorted(source.arguments) == [
        "base", "base_digest", "batch_size", "captions", "classes", "decoding", "fit", "flip", "generators",
        "photos", "precision", "seed", "steps",
    ]  # fmt: skip
    key = sha256(json.dumps(source.arguments, sort_keys=True).encode())[:16]
    assert source.folder == Path("evaluation", "arms", key)


def test_the_cost_of_images_is_that_of_their_adapters_and_of_sampling(tmp_path):
    sources = made(planned(shots=("2",), seeds=1, generators=ALL, output=tmp_path))
    assert sources["img2img"].seconds() is None
    tuned = {"finetune.train_lora": 30.0, "generate": 3}
    notes = {"untuned": {"generate": 2.0}, TUNED: tuned, "img2img": {"generate": 5.0}}
    for name, spent in notes.items():
        sources[name].folder.mkdir(parents=True)
        (sources[name].folder / "seconds.json").write_text(json.dumps(spent))
    assert {name: sources[name].seconds() for name in notes} == {"untuned": 2, TUNED: 33, "img2img": 35}
    to_train = {name: sources[name].seconds_to_train() for name in notes}
    assert to_train == {"untuned": None, TUNED: 30, "img2img": 30}
    (sources[TUNED].folder / "seconds.json").write_text('{"generate": 3}')
    assert sources["img2img"].seconds() is None


def test_those_that_share_adapters_or_images_stay_on_one_process():
    runs = planned(shots=("2,4",), seeds=2, generators=ALL)
    parts = [share(runs, process, 2) for process in (0, 1)]
    assert sorted(run.key for part in parts for run in part) == sorted(run.key for run in runs)
    places = [{run.source.together for run in part if run.source} for part in parts]
    assert places[0] and places[1] and not places[0] & places[1]


def test_a_run_of_an_earlier_version_was_made_by_what_went_without_saying():
    def of(**fields) -> str:
        usual = {"design": "substitute", "ratio": 0.5, "shots": None, "seed": 0}
        return records.complete({**usual, **fields})["generator"]

    assert of() == of(arm="without_flat") == of(arm="untuned") == "given"
    assert of(arm="fold", fold=0) == of(arm="shots", shots=2) == "tuned"
    assert of(ratio=1.0) == of(arm="oversampled") == of(arm="shots", shots=2, ratio=1.0) == "none"
    for options in ({"shots": ("2",)}, {"folds": 2}, {}):
        for run in planned(seeds=1, **options):
            older = {name: value for name, value in run.identity.items() if name != "generator"}
            assert records.key(older) == run.key


def test_auto_chooses_among_the_others_and_comes_after_them():
    runs = planned(shots=("2",), seeds=1, generators=("auto", "none", "untuned", "tuned"))
    assert [run.arm.generator for run in runs] == ["none", "untuned", "tuned", "auto of untuned, tuned"]
    auto = runs[-1]
    assert list(auto.candidates) == ["untuned", "tuned"]
    assert auto.chooses and not runs[0].chooses
    tried = candidates(auto)
    assert [one.label for one in tried] == ["no synthetic images", "untuned", "tuned"]
    best = choose(auto, lambda one: np.full(6, {"untuned": 0.1}.get(one.label, 0.5)))
    assert best.record["chosen"] == "untuned"
    assert best.record["untried"] == ["other ways of mixing", *UNTRIED]
    assert best.made(auto).source == auto.candidates["untuned"]
    assert choose(auto, lambda one: np.ones(6)).record["chosen"] == "no synthetic images"
    shares = (1.0, 0.5, 0.0)
    mixed = planned(seeds=1, shares=shares, generators=("auto", "untuned"))
    assert [(run.arm.mixture.ratio, run.arm.generator) for run in mixed][-2:] == [
        (0.5, "auto of untuned"), (0.0, "untuned"),
    ]  # fmt: skip


def test_generator_and_mixing_are_chosen_together():
    *_, auto = planned(shots=("2",), seeds=1, mixing="auto", generators=("untuned", "tuned", "auto"))
    names = [one.label for one in candidates(auto)]
    assert len(names) == len(set(names)) == 1 + 2 * 5
    assert names[1:3] == ["untuned, 50% of them", "untuned"] and "tuned, weight 0.8" in names


def test_a_mixing_that_is_chosen_is_the_one_of_lowest_loss_and_may_be_no_synthetic_image_at_all():
    run = next(run for run in planned(shots=("4",), seeds=1, mixing="auto") if run.chooses)
    losses = {candidate: np.full(8, 1.0 - 0.1 * place) for place, candidate in enumerate(candidates(run))}
    last = choose(run, lambda candidate: losses[candidate])
    assert last.candidate == candidates(run)[-1]
    assert last.counts({"x": 5, "y": 4}) == {"x": 5, "y": 4}
    none = choose(run, lambda candidate: np.full(8, candidate.share))
    assert none.record["chosen"] == "no synthetic images"
    assert none.counts({"x": 5, "y": 4}) == {"x": 0, "y": 0}
    assert none.record["untried"] == list(UNTRIED)
    assert none.record["tried"]["union, 50% of them"] == 0.5
    assert choose(run, lambda _: np.ones(8)).candidate.share == 0
    assert replace(none, record=None).candidate == candidates(run)[0]


def test_synthetic_images_are_taken_where_they_win_by_more_than_a_standard_error():
    auto = planned(shots=("4",), seeds=1, generators=("auto", "untuned"))[-1]
    alone = np.array([1.0, 2.0, 3.0, 4.0])
    for gains, error, taken in (
        # By hand: mean 1, standard deviation sqrt(8/3), over sqrt(4) .8165: taken; mean .25, .8539: not.
        ((3.0, 1.0, 1.0, -1.0), (8 / 3) ** 0.5 / 2, "untuned"),
        ((2.0, 1.0, 0.0, -2.0), (35 / 12) ** 0.5 / 2, "no synthetic images"),
    ):
        found = choose(auto, lambda one, gains=gains: alone - (np.array(gains) if one.share else 0.0))
        assert found.record["errors"] == {"untuned": pytest.approx(error)}
        assert found.record["chosen"] == taken


def test_every_real_image_is_scored_once_to_choose_by_in_parts_that_have_all_classes():
    for shots, count in (("2", 2), ("4", 4), ("8", 5)):
        run = planned(
            sets(train=some("train", {"apple": 9, "pear": 8})), shots=(shots,), seeds=1, mixing="auto"
        )[-1]
        found = parts(run)
        assert len(found) == count
        assert sorted(digest for part in found for digest in part) == sorted(hashes(run.real))
        labels = {photo.sha256: photo.label for photo in run.real}
        assert all({labels[digest] for digest in part} == {"apple", "pear"} for part in found)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"generators": ("best",)}, ("--generators best", "untuned", "img2img")),
        ({"generators": ("tuned", "tuned")}, ("--generators: tuned is given twice",)),
        ({"generators": ("auto", "none")}, ("--generators auto", "name those to choose among")),
        ({"generators": ("given",), "shots": ("2",)}, ("--generators given: not with --shots",)),
        (
            {"generators": ("context",), "arm_prompt": ("a {label}",)},
            ("--generators context", "--arm_prompt"),
        ),
        ({"generators": ("gan",), "arm_prompt": ("a {label}",)}, ("--generators gan", "--arm_prompt")),
        ({"generators": ("tuned",), "controls": ("screens",)}, ("--controls screens", "add `given`")),
    ],
)
def test_generators_that_make_no_sense_are_refused(options, words, refused):
    with refused(*words):
        Evaluate(**options).require_valid()


def test_a_gan_of_another_size_than_the_bases_images_is_refused(refused):
    large = SimpleNamespace(name="sd15", resolution=512)
    with refused("--generators gan", "32, 64, 128 px", "the base sd15 512 px"):
        image_sets._require_models(Evaluate(generators=("gan",)), large)
    image_sets._require_models(Evaluate(generators=("tuned",)), large)


def test_a_choice_takes_a_second_image_of_a_class(refused):
    with refused("--shots 1", "--generators auto"):
        planned(shots=("1",), generators=("auto", "untuned"))


def test_the_documentation_names_every_generator():
    page = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}`" not in page] == []
