"""`python -m classify` under every fault."""

import pytest
import stub_sampler
from safetensors.torch import load_file
from trials import Subject, Trials

from orchard import classifiers

TRAINING = ("--size", 32, "--steps", 2, "--batch_size", 4, "--precision", "fp32")


def seen(output):
    """Weights and header of the classifier, predictions, and scores but for the name of the output."""
    tensors = load_file(output / classifiers.FILE)
    scores = (output / "scores.json").read_text().replace(f'"{output}"', "")
    weights = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    return weights, classifiers.read(output), (output / "predictions.jsonl").read_bytes(), scores


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
            finished=lambda output: {path.name for path in output.iterdir() if path.suffix != ".part"},
        )
    )


@pytest.mark.fault("kill -9", "each file is whole or not there; the same command ends in equal bytes")
def test_killed(trials):
    trials.killed()


@pytest.mark.fault("SIGTERM", "exit code 143; each file is whole or not there; then equal bytes")
def test_terminated(trials):
    trials.terminated()


@pytest.mark.fault("full disk", "one line, exit code 2; each file is whole or not there; then equal bytes")
def test_full_disk(trials):
    trials.full()


@pytest.mark.fault("read-only output", "one line, exit code 2, before training; then equal bytes")
def test_read_only(trials):
    trials.protected()


@pytest.mark.fault("clock that jumps", "equal bytes")
def test_clock(trials):
    trials.clock()


@pytest.mark.fault("two writers", "the second is refused and changes nothing; equal bytes")
def test_two_writers(trials):
    trials.two_writers()
