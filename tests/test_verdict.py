"""The result in one sentence, and what it cannot show."""

from runs import run, wrong_at

from evaluate.statistics import summarise
from evaluate.verdict import limits, verdict

MINUS = "\N{MINUS SIGN}"


def said(records, margin=2.0):
    return verdict(summarise(records, margin), margin)


def pair(*wrong, n=30, ratio=0.3, seeds=2, **more):
    return [
        run(wrong_at(n, *places), ratio=r, seed=seed, **more)
        for r, places in ((1.0, ()), (ratio, wrong))
        for seed in range(seeds)
    ]


def test_verdict_states_the_change_its_interval_and_what_cannot_be_resolved():
    sentence = said(pair(0, 1, 2))
    assert sentence.startswith(
        "Replacing 70% of the real images with synthetic ones changed mean accuracy by "
        f"{MINUS}10.0 points (95% interval {MINUS}"
    )
    assert sentence.endswith(
        "; 100.0% to 90.0%, 2 runs, McNemar p = 0.25), which this test set can neither tell from no change "
        "nor show to lie within 2 points; with 30 test images, differences under 20.0 points cannot be "
        "resolved."
    )


def test_verdict_names_a_difference_that_is_significant():
    sentence = said(pair(*range(9), ratio=0.0, seeds=1))
    # Nine images to none: 2 / 2**9.
    assert "Replacing all of the real images" in sentence
    assert "1 run, McNemar p = 0.004), a significant difference;" in sentence


def test_verdict_takes_the_p_that_is_corrected_for_all_arms():
    records = pair(*range(6), ratio=0.3, seeds=1)
    assert "McNemar p = 0.031), a significant difference" in said(records)
    # A second comparison that finds nothing doubles it.
    records.append(run(wrong_at(30, 0), ratio=0.5))
    assert "p = 0.062, Holm-corrected for 2 comparisons), which is unresolved: 0 lies" in said(records)


def test_verdict_says_when_no_loss_beyond_the_margin_is_possible():
    records = pair(0, n=600, seeds=1)
    assert "no worse than real images alone within the margin of 2 points;" in said(records)
    assert "nor show to lie within 0.1 points" in said(records, margin=0.1)


def test_verdict_of_the_augment_design_speaks_of_adding():
    sentence = said(pair(ratio=0.5, design="augment"))
    assert sentence.startswith(
        "Adding 100 synthetic images to 100 real ones changed mean accuracy by 0.0 points"
    )


def test_verdict_of_low_shot_arms_names_the_shots():
    sentence = said(pair(0, ratio=0.02, shots=1, n_real=3, n_synthetic=150))
    assert sentence.startswith("Adding 150 synthetic images to 3 real ones, at 1 real image a class, changed")


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
    assert limits(summarise([run(wrong_at(4))]))[0].startswith("With 4 test images no difference at all")


def test_limits_say_how_many_images_the_margin_takes():
    (line,) = [line for line in limits(summarise([run(wrong_at(55))]), margin=5) if "5 points" in line]
    assert "takes 157 test images" in line
