"""`python -m classify` under every fault."""

import pytest
import stub_sampler
from safetensors.torch import load_file
from trials import Subject, Trials

from orchard.classifiers import classifier

TRAINING = ("--size", 32, "--steps", 2, "--batch_size", 4, "--precision", "fp32")


def seen(output):
    """Weights and header of the classifier, predictions, and scores but for the name of the output."""
    tensors = load_file(output / classifier.FILE)
    scores = (output / "scores.json").read_text().replace(f'"{output}"', "")
    weights = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    return weights, classifier.read(output), (output / "predictions.jsonl").read_bytes(), scores


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    home = tmp_path_factory.mktemp("classify")
    photos = stub_sampler.photos(home / "photos")
    return Trials(
        Subject(
            command="classify",
            words=("--train", photos, "--test", photos, *TRAINING),
            home=home,
            seen=seen,
            finished=lambda output: {path.name for path in output.glob("*") if path.suffix != ".part"},
        )
    )


@pytest.mark.fault("kill -9", 20, "each file is whole or not there; the same command ends in equal bytes")
def test_killed(trials, moments):
    trials.killed(moments)


@pytest.mark.fault("SIGTERM", 20, "code 143; each file is whole or not there; then equal bytes")
def test_terminated(trials, moments):
    trials.terminated(moments)


@pytest.mark.fault("full disk", 20, "one line; each file is whole or not there; then equal bytes")
def test_full_disk(trials, moments):
    trials.full(moments)


@pytest.mark.fault("read-only output", 20, "one line; then equal bytes")
def test_read_only(trials, moments):
    trials.protected(moments)


@pytest.mark.fault("clock that jumps", 1, "equal bytes")
def test_clock(trials):
    trials.clock()


@pytest.mark.fault("two writers", 20, "the second is refused and changes nothing; equal bytes")
def test_two_writers(trials, moments):
    trials.two_writers(moments)
