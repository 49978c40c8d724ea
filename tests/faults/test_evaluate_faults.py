"""`python -m evaluate` under every fault."""

import json

import pipelines
import pytest
import stub_sampler
from trials import Subject, Trials

from evaluate.records import records
from orchard.classifiers import classifier

TRAINING = ("--size", 32, "--steps", 1, "--batch_size", 4, "--precision", "fp32", "--seeds", 2)
NUMBERS = ("experiment.json", "arms.csv", "analysis.json", "fidelity.json")


def plain(record):
    """A record without what no two runs have in common."""
    return {name: value for name, value in record.items() if not name.startswith("seconds")}


def seen(output):
    """Records but for seconds, the numbers made of them, and that there is a page."""
    found = {name: (output / name).read_text().replace(str(output), "OUTPUT") for name in NUMBERS}
    kept = classifier.read(output / "real_only_ratio.safetensors")
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


@pytest.mark.fault("kill -9", 20, "finished runs stay; the same command trains the others: equal records")
def test_killed(trials, moments):
    trials.killed(moments)


@pytest.mark.fault("SIGTERM", 20, "code 143; finished runs stay; then equal records")
def test_terminated(trials, moments):
    trials.terminated(moments)


@pytest.mark.fault("full disk", 20, "one line; finished runs stay; then equal records", slow=16)
def test_full_disk(trials, moments):
    trials.full(moments)


@pytest.mark.fault("read-only output", 20, "one line; finished runs stay; then equal records", slow=16)
def test_read_only(trials, moments):
    trials.protected(moments)


@pytest.mark.fault("clock that jumps", 1, "equal records")
def test_clock(trials):
    trials.clock()


@pytest.mark.fault("two writers", 20, "the second is refused and changes nothing; equal records", slow=16)
def test_two_writers(trials, moments):
    trials.two_writers(moments)
