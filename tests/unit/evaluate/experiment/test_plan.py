"""Which runs an experiment has: the arms, their images, and what stays apart."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from planned import hashes, planned, sets, some

from evaluate.config import Evaluate, parse_shots
from evaluate.experiment import plan_text
from evaluate.experiment.arms import seeds_of
from evaluate.experiment.mixtures import draw
from evaluate.experiment.plan import plan
from evaluate.experiment.runner import validation_images
from evaluate.experiment.sweep import share
from evaluate.records import records
from orchard.cli.terminal import Terminal
from orchard.images.images import TEST, TRAIN


def test_a_smaller_share_of_real_images_lies_in_a_larger_one():
    large, small = (run.real for run in planned(shares=(0.5, 0.25), seeds=1))
    assert hashes(small) < hashes(large)
    assert Counter(photo.label for photo in small) == {"apple": 5, "pear": 4}


def test_fewer_shots_lie_in_more_shots_and_come_with_and_without_synthetic_images():
    runs = planned(shots=("4", "1,2"), seeds=1, arm_count=7)
    assert [(run.arm.shots, sum(run.arm.mixture.synthetic.values())) for run in runs] == [
        (1, 0), (1, 14), (2, 0), (2, 14), (4, 0), (4, 14),
    ]  # fmt: skip
    assert [run.arm.mixture.ratio for run in runs] == [1, 2 / 16, 1, 4 / 18, 1, 8 / 22]
    one, two, four = (hashes(run.real) for run in runs[::2])
    assert one < two < four
    assert [len(one), len(two), len(four)] == [2, 4, 8]
    for run in runs[1::2]:
        assert hashes(run.source.real.photos) == hashes(run.real)


def test_what_low_shot_arms_leave_over_is_scored_but_no_copy_of_what_they_take():
    given = sets(train=some("train", {"apple": 4, "pear": 4}))
    copy = replace(given.train.photos[0], path="copy")
    given = replace(given, train=given.train.keep((*given.train.photos, copy)))
    test = hashes(given.test.photos)
    for run in planned(given, shots=("1,2",), seeds=2, left_over=True):
        assert hashes(run.test) == test | hashes(given.train.photos) - hashes(run.real)
        assert hashes(run.source.held_out.photos) <= test if run.source else True
    assert all(hashes(run.test) == test for run in planned(given, shots=("1,2",), seeds=2))


def test_the_plan_says_what_else_low_shot_arms_are_scored_on(capsys, refused):
    given, config = sets(), Evaluate(shots=("2",), seeds=1, left_over=True, generators=("none",))
    plan_text.plan(Terminal(), config, given, plan(config, given, (), "fp32"), "fp32", 1)
    assert f"scored on the test split and {plan_text.LEFT_OVER}" in " ".join(capsys.readouterr().out.split())
    with refused("--left_over: only with --shots"):
        replace(config, shots=()).require_valid()


@pytest.mark.parametrize(
    ("options", "shares", "words"),
    [
        ({"search": True, "ratios": ("1",)}, (1.0,), ("--ratios 1", "between 0 and 1")),
        ({"generators": ("none",), "ratios": ("0",)}, (0.0,), ("--ratios 0", "--generators none")),
        ({"search": True, "shots": ("1",)}, (), ("--shots 1", "leave --search out")),
        ({"validation": "real", "shots": ("1",)}, (), ("--shots 1", "leave --validation real out")),
        ({"shots": ("17",)}, (), ("--shots 17", "class pear has 16", "give 16 or fewer")),
    ],
)
def test_an_experiment_without_an_arm_is_refused(options, shares, words, refused):
    with refused(*words):
        planned(shares=shares, **options)


def test_a_mixing_cannot_be_chosen_on_one_image_of_each_class(refused):
    given = sets(train=some("train", {"apple": 2, "pear": 2}))
    with refused("--mixing auto", "50% real", "one real image of apple, pear"):
        planned(given, shares=(0.5,), seeds=1, mixing="auto")
    with refused("one real image of pear"):
        planned(sets(train=some("train", {"apple": 8, "pear": 2})), (0.5,), seeds=1, mixing="auto")
    (run,) = planned(sets(train=some("train", {"apple": 8, "pear": 4})), (0.5,), seeds=1, mixing="auto")
    assert len(run.real) == 6


def test_the_plan_tells_what_share_whole_images_make(capsys):
    given = sets(train=some("train", {"apple": 12, "pear": 12, "plum": 2}))
    given = replace(given, synthetic=some("synthetic", dict.fromkeys(given.train.classes, 20)))
    config = Evaluate(seeds=1)
    runs = plan(config, given, (1.0, 0.5, 0.1), "fp32")
    plan_text.plan(Terminal(), config, given, runs, "fp32", 1)
    printed = " ".join(capsys.readouterr().out.split())
    assert "10% real: 3 real + 23 synthetic images, 11.5% real: whole images" in printed
    assert "50% real: 13 real + 13 synthetic images arm" in printed


def test_all_arms_train_the_same_number_of_steps_with_the_same_options():
    runs = planned(shares=(1.0, 0.3, 0.0), seeds=2, generators=("given", "none"), steps=123)
    assert len({run.options for run in runs}) == 1
    assert {run.options.steps for run in runs} == {123}


def test_controls_stand_beside_the_arms_they_belong_to():
    given = sets()
    runs = planned(given, seeds=1, controls=("strong",), generators=("given", "untuned", "none"))
    found = [(run.arm.name, run.arm.generator, run.arm.mixture.ratio, len(run.real)) for run in runs]
    assert found == [
        ("ratio", "none", 1.0, 36),
        ("ratio", "given", 0.5, 18), ("ratio", "untuned", 0.5, 18), ("oversampled", "none", 0.5, 18),
        ("ratio", "given", 0.0, 0), ("ratio", "untuned", 0.0, 0),
        ("strong", "none", 1.0, 36),
    ]  # fmt: skip
    mixed, untuned, oversampled = runs[1:4]
    assert hashes(mixed.real) == hashes(untuned.real) == hashes(oversampled.real)
    assert mixed.source.found is given.synthetic
    assert untuned.source.generator.tuning is None
    assert oversampled.source is None
    assert [run.options.augmentation for run in runs] == ["plain"] * 6 + ["strong"]
    assert len({run.key for run in runs}) == len(runs)


def test_each_screen_is_left_out_of_each_mixture_with_synthetic_images():
    given = sets(unscreened={"flat": some("unscreened", {"apple": 60, "pear": 60})})
    runs = planned(given, seeds=1, controls=("screens",))
    found = [(run.arm.name, run.arm.mixture.ratio) for run in runs]
    assert found == [
        ("ratio", 1.0), ("ratio", 0.5), ("without_flat", 0.5), ("ratio", 0.0), ("without_flat", 0.0),
    ]  # fmt: skip
    assert runs[2].source.found is given.unscreened["flat"]
    assert hashes(runs[2].real) == hashes(runs[1].real)


def test_seeds_of_subset_generator_and_classifier_go_apart():
    config = Evaluate(seed=5, seeds=2)
    assert [(s.subset, s.generator, s.classifier) for s in seeds_of(config)] == [(5, 5, 5), (6, 6, 6)]
    fixed = seeds_of(replace(config, vary_seeds=("classifier",)))
    assert [(s.subset, s.generator, s.classifier) for s in fixed] == [(5, 5, 5), (5, 5, 6)]
    runs = planned(shots=("2",), seeds=2, vary_seeds=("classifier",))
    assert hashes(runs[0].real) == hashes(runs[2].real)
    assert runs[1].source.name == runs[3].source.name
    moved = planned(shots=("2",), seeds=2, vary_seeds=("classifier", "generator"))
    assert hashes(moved[1].real) == hashes(moved[3].real)
    assert moved[1].source.name != moved[3].source.name


def test_cross_validation_scores_every_real_image_once_by_generators_that_have_not_seen_it():
    given = sets()
    runs = planned(given, folds=3, repeats=2, seeds=2, shares=(1.0, 0.5))
    everything = hashes(given.train.photos) | hashes(given.test.photos)
    assert len(runs) == 2 * 3 * 2 * 2
    for repeat in (0, 1):
        first = [r for r in runs if r.arm.repeat == repeat and r.seeds.classifier == 0 and r.source]
        tested = Counter(digest for run in first for digest in hashes(run.test))
        assert tested == dict.fromkeys(everything, 1)
        assert [len(run.test) for run in first] == [14, 14, 14]
        for run in first:
            assert hashes(run.source.real.photos) == everything - hashes(run.test)
            assert hashes(run.real) <= hashes(run.source.real.photos)
            assert {photo.split for photo in run.real} == {TRAIN}
    divisions = [{frozenset(hashes(r.test)) for r in runs if r.arm.repeat == k} for k in (0, 1)]
    assert divisions[0] != divisions[1]


@pytest.mark.parametrize("vary", [("subset", "generator", "classifier"), ("classifier",)])
def test_the_runs_of_a_fold_share_its_generator_and_draw_real_images_anew_if_asked(vary):
    runs = [r for r in planned(folds=3, seeds=2, shares=(0.5,), vary_seeds=vary) if r.arm.fold == 0]
    one, other = runs
    assert (one.seeds.classifier, other.seeds.classifier) == (0, 1)
    assert one.source.name == other.source.name
    assert hashes(one.test) == hashes(other.test)
    assert (hashes(one.real) != hashes(other.real)) == ("subset" in vary)


def test_runs_of_two_repeats_draw_apart_though_their_subset_seeds_are_alike():
    many = sets(train=some("train", {"apple": 200}), test=some("test", {"apple": 20}, TEST))
    runs = planned(many, folds=5, repeats=2, seeds=2, shares=(0.3,))
    one, other = (next(r for r in runs if r.seeds.subset == 1 and r.arm.repeat == k) for k in (0, 1))
    common = hashes(one.source.real.photos) & hashes(other.source.real.photos)
    drawn, again = hashes(one.real) & common, hashes(other.real) & common
    # By chance 0.3 of them; all but a few where the draws are one.
    assert len(drawn & again) / len(drawn) < 0.5


def test_a_class_too_small_for_the_folds_is_named(refused):
    with refused("class plum has 2 images", "3 folds need at least 3"):
        planned(
            sets(train=some("train", {"apple": 9, "plum": 2}), test=some("t", {"apple": 1, "plum": 0})),
            folds=3,
        )


def test_mixed_validation_takes_synthetic_images_that_train_nothing():
    runs = planned(validation="mixed", seeds=1, shares=(1.0, 0.5))
    alone, mixed = runs
    assert alone.held_out_synthetic == {"apple": 0, "pear": 0}
    assert (
        mixed.held_out_synthetic
        == Counter(photo.label for photo in mixed.held_out)
        == {"apple": 2, "pear": 2}
    )
    assert mixed.needed == {"apple": 11, "pear": 9}
    taken = draw(mixed.source.images().photos, mixed.arm.mixture.synthetic, "synthetic", mixed.seeds.subset)
    found = validation_images(mixed, taken)
    assert Counter(photo.path.split("/")[0] for photo in found) == {"train": 4, "synthetic": 4}
    assert not hashes(found) & hashes(taken)
    assert validation_images(alone, []) == list(alone.held_out)
    (_, tuned) = planned(validation="mixed", seeds=1, shots=("8",), arm_count=7)
    assert tuned.source.count == 7 + 1


def test_mixed_validation_needs_images_of_its_own(refused):
    counts = {"apple": 10, "pear": 10}
    planned(sets(synthetic=some("synthetic", counts)), seeds=1, shares=(1.0, 0.5))
    with refused("10 images of apple, the mixtures need 11"):
        planned(sets(synthetic=some("synthetic", counts)), validation="mixed", seeds=1, shares=(1.0, 0.5))


def test_more_shots_than_images_are_refused(refused):
    with refused("--shots 17", "16 training images"):
        planned(shots=("17",))


def test_one_shot_leaves_nothing_to_validate_on(refused):
    with refused("--shots 1", "--mixing auto"):
        planned(shots=("1",), mixing="auto")


def test_prompts_of_arms_name_the_class_and_stand_in_what_the_images_depend_on(refused):
    plain, scene = "a photo of {label}", "a photo of {label}, scene background"
    own, given = (planned(shots=("2",), arm_prompt=prompts)[1].source for prompts in ((), (plain, scene)))
    assert "--prompt" not in own._generate_options(Path("p")) and "prompts" not in own.arguments
    assert tuple(given._generate_options(Path("p"))[-3:]) == ("--prompt", plain, scene)
    assert own.folder != given.folder
    with refused("--arm_prompt 'a photo'", "{label}"):
        planned(shots=("2",), arm_prompt=("a photo",))
    with refused("--arm_prompt: only with --shots, --folds or --generators"):
        planned(arm_prompt=(plain,))


@pytest.mark.parametrize("word", ["0", "-1", "1.5", "two", "²"])
def test_shots_are_whole_numbers(word, refused):
    with refused(f"--shots {word}", "1,2,4,8,16"):
        parse_shots((word,))


def test_what_belongs_to_given_images_is_refused_where_arms_bring_their_own(refused):
    for options in ({"total": 9}, {"controls": ("strong",)}, {"folds": 2}):
        with refused("--shots"):
            Evaluate(shots=("1",), **options).require_valid()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"folds": 1}, "--folds 1"),
        ({"real_weight": 1.0}, "--real_weight 1.0"),
        ({"external": ("a", "a")}, "--external: a is given twice"),
        ({"controls": ("strong", "strong")}, "--controls: strong is given twice"),
        ({"vary_seeds": ("subset",), "seeds": 2}, "--vary_seeds"),
        ({"model": "features:cnn", "mixing": "batch"}, "--mixing batch"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words, refused):
    with refused(words):
        Evaluate(**options).require_valid()


def test_mixing_names_the_arms_of_two_sources_alone():
    runs = planned(seeds=1, mixing="weight", real_weight=0.7)
    assert [run.arm.mixed_by for run in runs] == ["union", "weight 0.7", "union"]


def test_a_run_knows_its_record_and_those_of_older_versions():
    run = planned(seeds=1, seed=3)[1]
    record = {**run.identity, "accuracy": 1.0}
    assert records.key(record) == run.key
    older = {"design": "substitute", "ratio": 0.5, "shots": None, "seed": 3, "accuracy": 1.0}
    assert records.key(older) == run.key


@pytest.mark.heavy
def test_processes_share_the_runs_and_each_generator_has_one_of_them():
    runs = planned(shots=("1,2,4",), seeds=2)
    parts = [share(runs, process, 2) for process in (0, 1)]
    assert sorted(run.key for part in parts for run in part) == sorted(run.key for run in runs)
    owners = [{run.source.name for run in part if run.source} for part in parts]
    assert owners[0] and owners[1] and not owners[0] & owners[1]


def test_seeds_whose_mixing_is_chosen_together_stay_on_one_process():
    runs = planned(shots=("2,4",), seeds=3, mixing="auto", vary_seeds=("classifier",))
    for process in (0, 1):
        mine = [run for run in share(runs, process, 2) if run.source]
        assert [run.seeds.classifier for run in mine] == [0, 1, 2]
        assert len({run.choice_key for run in mine}) == 1
