"""The result in one sentence, and what it cannot show."""

import pytest
from runs import run, wrong_at

from evaluate.analysis.summary import summarise
from evaluate.analysis.verdict import basis, caveat, limits, verdict

MINUS = "\N{MINUS SIGN}"


def said(records, margin=2.0):
    return verdict(summarise(records, margin), margin)


def pair(*wrong, n=30, ratio=0.3, seeds=2, **more):
    return [
        run(wrong_at(n, *places), ratio=r, seed=seed, **more)
        for r, places in ((1.0, ()), (ratio, wrong))
        for seed in range(seeds)
    ]


def test_verdict_states_the_change_and_its_interval():
    sentence = said(pair(0, 1, 2, seeds=3))
    assert sentence.startswith(
        "Replacing 70% of the real images with synthetic ones changed mean accuracy by "
        f"{MINUS}10.0 points (95% interval {MINUS}"
    )
    assert sentence.endswith(
        ": neither a difference nor its absence, within the margin of 2 points, is established."
    )


def test_the_verdict_rests_on_paired_runs_and_says_which_arm_it_is_of_and_why():
    records = [*pair(0, ratio=0.5, seeds=3), *pair(0, 1, 2, seeds=3)[3:]]
    # Runs of real images alone without a partner are in no figure of the comparison.
    records += [run(wrong_at(30, *range(9)), seed=seed) for seed in (7, 8)]
    rows = summarise(records)
    said = basis(rows)
    assert said.startswith(
        "100.0% with real images alone, 90.0% with this mixture, over 3 runs of each on 30 test images; p = "
    )
    assert f"changed mean accuracy by {MINUS}10.0 points" in verdict(rows)
    assert said.endswith(
        "Holm-corrected for 2 comparisons. Of 2 arms compared with real images alone this is the mixture "
        "with the least real images that still has some."
    )
    assert "Of 2 arms" not in basis(summarise(pair(0)))


def test_one_seed_is_said_to_speak_of_its_classifiers_alone():
    rows = summarise(pair(0, 1, 2, seeds=1))
    assert verdict(rows).endswith("for these two classifiers): one seed establishes nothing.")
    assert caveat(rows).startswith("With one seed per arm, the variation between training runs is unknown")
    # Nine images to none: 2 / 2**9.
    rows = summarise(pair(*range(9), ratio=0.0, seeds=1))
    assert "Replacing all of the real images" in verdict(rows)
    assert verdict(rows).endswith(": these two classifiers differ.")
    assert "McNemar p = 0.004." in basis(rows)


def test_verdict_names_a_difference_that_all_arms_compared_leave_standing():
    records = pair(*range(5), ratio=0.3, seeds=3)
    assert said(records).endswith(": a loss.")
    # A second comparison that finds nothing doubles p.
    records += [run(wrong_at(30, seed), ratio=0.5, seed=seed) for seed in range(3)]
    assert said(records).endswith(": not established as a difference once all arms compared are counted.")


def test_verdict_says_when_no_loss_beyond_the_margin_is_possible():
    records = pair(0, n=600, seeds=3)
    assert said(records).endswith(": no worse than real images alone, within the margin of 2 points.")
    assert "within the margin of 0.1 points, is established" in said(records, margin=0.1)


@pytest.mark.heavy
def test_the_caveat_is_the_one_that_limits_the_verdict_most():
    assert caveat(summarise(pair(0, 1))).startswith("Two trainings hardly measure the chance in training")
    few = caveat(summarise(pair(0, seeds=3)))
    assert few.startswith("30 test images are few: to find a loss of 2 points")
    assert "takes at least 394" in few
    many = [run(wrong_at(600, *range(9 * seed)), ratio=0.3, seed=seed) for seed in range(3)]
    many += [run(wrong_at(600), seed=seed) for seed in range(3)]
    assert caveat(summarise(many)).startswith("It would take more seeds, or more test images")
    assert "another draw" in caveat(summarise(pair(0, n=600, seeds=3)))
    assert caveat(summarise([run(wrong_at(9))])) == ""


def test_verdict_of_the_augment_design_speaks_of_adding():
    sentence = said(pair(ratio=0.5, design="augment"))
    assert sentence.startswith(
        "Adding 100 synthetic images to 100 real ones changed mean accuracy by 0.0 points"
    )


def test_verdict_of_low_shot_arms_names_the_shots():
    sentence = said(pair(0, ratio=0.02, shots=1, n_real=3, n_synthetic=150))
    assert sentence.startswith(
        "Adding 150 synthetic images (tuned) to 3 real ones, at 1 real image per class, changed"
    )


def test_verdict_prefers_the_mixtures_to_their_controls():
    records = [*pair(0, ratio=0.5), run(wrong_at(30, *range(20)), ratio=0.0, arm="untuned")]
    assert said(records).startswith("Replacing 50% of the real images")


def test_verdict_without_real_only_runs_claims_nothing():
    sentence = said([run(wrong_at(30, 0, 1, 2), ratio=0.3)])
    assert "90.0%" in sentence
    assert "nothing can be said" in sentence


def test_limits_name_the_best_score_that_can_be_told_from_a_perfect_one():
    lines = limits(summarise([run(wrong_at(55))]))
    assert "55 of 55" in lines[0]
    assert "at most 49 right" in lines[0]
    assert "a true loss has to reach 14.0 points" in lines[1]
    assert limits(summarise([run(wrong_at(4))]))[0].startswith("With 4 test images exact McNemar can tell no")


def test_limits_say_how_many_images_the_margin_takes():
    (line,) = [line for line in limits(summarise([run(wrong_at(55))]), margin=5) if "5 points" in line]
    assert "takes 157 test images" in line
