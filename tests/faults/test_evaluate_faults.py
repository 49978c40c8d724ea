"""`python -m evaluate` under every fault."""

import json

import pipelines
import pytest
import stub_sampler
from trials import Subject, Trials

from evaluate import records
from orchard import classifiers

TRAINING = ("--size", 32, "--steps", 1, "--batch_size", 4, "--precision", "fp32", "--seeds", 2)
NUMBERS = ("experiment.json", "arms.csv", "analysis.json", "fidelity.json")


def plain(record):
    """A record without what no two runs have in common."""
    return {name: value for name, value in record.items() if not name.startswith("seconds")}


def seen(output):
    """Records but for seconds, the numbers made of them, and that there is a page."""
    found = {name: (output / name).read_text().replace(str(output), "OUTPUT") for name in NUMBERS}
    kept = classifiers.read(output / "real_only_ratio.safetensors")
    return found, [plain(record) for record in records.read(output)], kept, (output / "report.html").is_file()


def synthetic(home, photos):
    """A set of noise images, by the command that makes such sets."""
    sizes = ("--count", 4, "--batch_size", 4, "--precision", "fp32", "--classes", *stub_sampler.CLASSES)
    words = ("--base", pipelines.tiny(home / "base"), "--data", photos, *sizes)
    maker = Subject(
        command="generate", words=words, home=home, seen=bool, finished=lambda output: set(), draw="noise"
    )
    assert maker.run(home / "shards").code == 0
    return home / "shards"


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    home = tmp_path_factory.mktemp("evaluate")
    photos = stub_sampler.photos(home / "photos")
    sets = ("--data", photos, "--synthetic", synthetic(home, photos))
    return Trials(
        Subject(
            command="evaluate",
            words=(*sets, "--ratios", 1, 0.5, *TRAINING),
            home=home,
            seen=seen,
            finished=lambda output: {json.dumps(plain(record)) for record in records.read(output)},
        )
    )


@pytest.mark.fault(
    "kill -9", "finished runs stay; the same command trains the others: equal records but for seconds"
)
def test_killed(trials):
    trials.killed()


@pytest.mark.fault("SIGTERM", "exit code 143; finished runs stay; then equal records but for seconds")
def test_terminated(trials):
    trials.terminated()


@pytest.mark.fault(
    "full disk", "one line, exit code 2; finished runs stay; then equal records but for seconds"
)
def test_full_disk(trials):
    trials.full()


@pytest.mark.fault(
    "read-only output", "one line, exit code 2; finished runs stay; then equal records but for seconds"
)
def test_read_only(trials):
    trials.protected()


@pytest.mark.fault("clock that jumps", "equal records but for seconds")
def test_clock(trials):
    trials.clock()


@pytest.mark.fault("two writers", "the second is refused and changes nothing; equal records but for seconds")
def test_two_writers(trials):
    trials.two_writers()
