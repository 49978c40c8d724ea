"""The exchange rate on sweeps whose law is known."""

import numpy as np
import pytest
from runs import run

from evaluate.exchange import Exchange, exchange, fit, laws

SCALE, EXPONENT, RATE = 1.2, 0.6, 8.0


def accuracy(real, synthetic):
    return 1 - SCALE * (real + synthetic / RATE) ** -EXPONENT


def low_shot(synthetics=(0, 150), shots=(2, 4, 8, 16), n=400, seeds=3):
    """Low-shot arms whose errors follow the law; the harder images are the same in every run."""
    records = []
    for count in shots:
        for synthetic in synthetics:
            wrong = round(n * (1 - accuracy(3 * count, synthetic)))
            for seed in range(seeds):
                order = np.random.default_rng(seed).permutation(n)
                right = np.isin(np.arange(n), order[:wrong], invert=True)
                more = {"ratio": 3 * count / (3 * count + synthetic), "shots": count, "seed": seed}
                records.append(run(right, n_real=3 * count, n_synthetic=synthetic, arm="shots", **more))
    return records


def test_a_planted_rate_is_found_and_lies_in_its_interval():
    found = exchange(low_shot(), "shots")
    assert isinstance(found, Exchange)
    assert found.rate == pytest.approx(RATE, rel=0.1)
    assert found.exponent == pytest.approx(EXPONENT, rel=0.05)
    low, high = found.interval
    assert low < RATE < high
    assert found.deviation < 1
    assert len(found.points) == 8


def test_synthetic_images_that_change_nothing_have_no_upper_limit():
    records = low_shot()
    plain = {(r["shots"], r["seed"]): r for r in records if not r["n_synthetic"]}
    useless = [
        {**plain[r["shots"], r["seed"]], "ratio": r["ratio"], "n_synthetic": r["n_synthetic"]}
        for r in records
    ]
    found = exchange(useless, "shots")
    assert found.rate > 100
    assert found.interval[1] is None


def test_one_number_of_real_images_has_no_rate():
    said = exchange([r for r in low_shot() if r["shots"] == 4], "shots")
    assert "two numbers" in said
    assert exchange(low_shot(synthetics=(0,)), "shots") == "needs an arm with synthetic images"


def test_controls_and_other_mixings_stay_out_of_the_fit():
    records = low_shot()
    others = [{**r, "arm": "untuned", "n_synthetic": 9999} for r in records[:2]]
    others += [{**r, "mixing": "weight 0.8", "n_synthetic": 9999} for r in records[:2]]
    assert exchange(records + others, "shots") == exchange(records, "shots")


def test_law_of_each_source_alone():
    law, *others = laws(low_shot())
    assert not others
    assert (law.source, law.counts) == ("real", (6, 12, 24, 48))
    assert law.exponent == pytest.approx(EXPONENT, rel=0.05)
    assert law.interval[0] < EXPONENT < law.interval[1]


def test_arms_without_a_mistake_can_be_fitted():
    found = fit(np.array([10.0, 100.0, 1000.0]), np.zeros(3), np.array([0.9, 0.99, 1.0]))
    assert found.accuracy(np.array([10.0, 100.0]), np.zeros(2)) == pytest.approx([0.9, 0.99], abs=0.005)


def test_the_gradient_of_the_fit_is_exact():
    from scipy.optimize import check_grad

    from evaluate.exchange import _loss

    data = (np.array([10.0, 40.0, 0.0]), np.array([0.0, 90.0, 300.0]), np.array([0.3, 0.1, 0.2]))
    at = np.array([0.1, 0.5, -1.0])
    assert check_grad(lambda x: _loss(x, *data)[0], lambda x: _loss(x, *data)[1], at) < 1e-5


@pytest.mark.parametrize("seed", range(4))
def test_where_more_real_images_change_nothing_there_is_no_rate(seed):
    rng = np.random.default_rng(seed)
    flat = [
        run(rng.random(55) < 0.98, shots=shots, seed=k, ratio=ratio, n_real=3 * shots, n_synthetic=made)
        for shots in (4, 8, 16)
        for ratio, made in ((1.0, 0), (0.5, 150))
        for k in range(5)
    ]
    assert "needs arms in which more images lower the error" in exchange(flat, "shots")
