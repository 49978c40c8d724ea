"""The exchange rate on sweeps whose law is known."""

from types import SimpleNamespace

import numpy as np
import pytest
from runs import run

from evaluate.analysis.analyse import analyse
from evaluate.analysis.exchange_rate import Exchange, _loss, exchange, fit, laws
from evaluate.report import html_page

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


@pytest.mark.filterwarnings("error")
def test_arms_that_test_what_others_train_on_are_compared_on_what_all_of_them_test():
    kept = [{**r, "predictions": r["predictions"][r["shots"] :]} for r in low_shot()]
    alike = [{**r, "predictions": r["predictions"][16:]} for r in low_shot()]
    assert exchange(kept, "shots") == exchange(alike, "shots")


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


@pytest.mark.parametrize("at", [(0.1, 0.5), (8.0, 0.05), (-3.0, 2.5), (12.0, 0.01)])
def test_the_gradient_of_the_fit_is_exact_also_where_the_error_is_all_but_one(at):
    data = (np.log([1.0, 4.0, 30.0]), np.array([0.97, 0.6, 0.2]))
    step = 1e-5
    for place in range(2):
        left, right = (np.array(at) + np.eye(2)[place] * side for side in (-step, step))
        slope = (_loss(right, *data)[0] - _loss(left, *data)[0]) / (2 * step)
        assert _loss(np.array(at), *data)[1][place] == pytest.approx(slope, rel=1e-4, abs=1e-6)


REAL = np.array([100.0, 200, 400, 800, 1600] * 2)
SYNTHETIC = np.repeat([0.0, 5000], 5)


def hard(rate):
    """Accuracies of .04 to .42, where a search from one start stays at a rate of 4.75."""
    return 1 - 0.96 * ((REAL + SYNTHETIC / rate) / 100) ** -0.18


@pytest.mark.parametrize("rate", [2.0, 10.0, 47.0, 120.0, 500.0])
def test_a_planted_rate_is_found_where_hardly_an_answer_is_right(rate):
    found = fit(REAL, SYNTHETIC, hard(rate))
    assert 1 / found.worth == pytest.approx(rate, rel=1e-3)
    assert found.exponent == pytest.approx(0.18, rel=1e-3)


def test_no_other_law_is_likelier():
    rng = np.random.default_rng(4)
    accuracies = rng.binomial(2000, hard(47)) / 2000
    found = fit(REAL, SYNTHETIC, accuracies)

    def loss(scale, exponent, worth):
        error = scale * (REAL + worth * SYNTHETIC) ** -exponent
        if (error >= 1).any():
            return np.inf
        return -((1 - accuracies) * np.log(error) + accuracies * np.log1p(-error)).sum()

    least = loss(found.scale, found.exponent, found.worth)
    anywhere = zip(
        rng.uniform(0, 3, 20000), rng.uniform(0, 1, 20000), rng.uniform(-7, 2.3, 20000), strict=True
    )
    assert all(loss(np.exp(a), b, np.exp(c)) >= least - 1e-6 for a, b, c in anywhere)


def test_the_interval_of_the_rate_holds_for_chance_in_training_and_in_test_images():
    """A rate of 47, one seed; each arm errs by a point of its own, most images are hard in all arms."""
    held = [hard_sweep(seed) for seed in range(12)]
    assert sum(low <= 47 and (high is None or high >= 47) for low, high in held) >= 10


def hard_sweep(seed):
    rng = np.random.default_rng(seed)
    easy = np.clip(hard(47) + rng.normal(0, 0.01, 10), 0, 1)[:, None]
    shared = rng.random((10, 500)) < 0.7
    drawn = np.where(shared, rng.random(500), rng.random((10, 500)))
    records = [
        run(right, shots=int(real), ratio=real / (real + made), n_real=int(real), n_synthetic=int(made))
        for real, made, right in zip(REAL, SYNTHETIC, drawn < easy, strict=True)
    ]
    return exchange(records, "shots").interval


@pytest.mark.heavy
def test_a_fit_that_fails_is_said(monkeypatch):
    from evaluate.analysis import exchange_rate as module

    failed = SimpleNamespace(success=False, message="no luck")
    monkeypatch.setattr(module, "minimize", lambda *args, **options: failed)
    assert exchange(low_shot(), "shots") == "could not be fitted (no luck)"
    assert laws(low_shot()) == ["Real images alone: no law could be fitted (no luck)"]
    found = analyse(low_shot())
    assert "could not be fitted" in found.no_exchange
    page = html_page.render(low_shot(), found, html_page.Context(title="x", commands=[]))
    assert "no law could be fitted (no luck)" in page and "it could not be fitted (no luck)" in page


def test_a_law_through_as_few_arms_as_it_has_parameters_has_no_interval():
    records = [r for r in low_shot(shots=(4, 16)) if r["n_real"] == 12 or not r["n_synthetic"]]
    found = exchange(records, "shots")
    assert found.rate == pytest.approx(RATE, rel=0.1)
    assert found.interval is None
    assert laws(records)[0].interval is None


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
