"""`finetune/train_lora.py` under every fault."""

import pipelines
import pytest
import stub_sampler
from safetensors.torch import load_file
from trials import Subject, Trials

from finetune import checkpoints
from orchard import adapter

SIZES = ("--steps", 4, "--save_every", 2, "--keep", 1, "--batch_size", 2, "--rank", 1, "--precision", "fp32")
SHOWN = ("--export", "kohya", "--preview_every", 2, "--no_sheets")


def seen(output):
    """Weights, headers, pictures and cards; the log without speeds; checkpoints by name."""
    found = {}
    for path in output.rglob("*.safetensors"):
        if checkpoints.FOLDER not in path.parts:
            weights = {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}
            found[path.relative_to(output)] = weights, adapter.read(path).provenance
    for pattern in ("*.png", "*.md"):
        found |= {path.relative_to(output): path.read_bytes() for path in output.rglob(pattern)}
    for path in output.glob("logs/*"):
        lines = path.read_text().splitlines()
        found[path.name] = [line.partition(', "images_per_second"')[0] for line in lines]
    return found | {"checkpoints": sorted(path.name for path in output.glob("checkpoints/*/*"))}


def finished(output):
    """Adapters, and steps of each that a checkpoint holds."""
    steps = [
        (path.parent.name, step)
        for path in output.glob("checkpoints/*/step-*")
        for step in range(int(path.name.removeprefix(checkpoints.PREFIX)) + 1)
    ]
    return {*steps, *(path.name for path in output.glob("*.safetensors"))}


def going_on(output):
    """What a stopped run asks for, once there is something to go on from."""
    there = any(output.glob("checkpoints/*/step-*")) or any(output.glob("*.safetensors"))
    return ("--resume", "latest") if there else ()


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    home = tmp_path_factory.mktemp("finetune")
    words = ("--base", pipelines.tiny(home / "base"), "--data", stub_sampler.photos(home / "photos"))
    return Trials(
        Subject(
            command="finetune",
            words=(*words, *SIZES, *SHOWN),
            home=home,
            seen=seen,
            finished=finished,
            going_on=going_on,
        )
    )


@pytest.mark.fault(
    "kill -9", "finished adapters and the last checkpoint stay; `--resume latest` ends in the same bits"
)
def test_killed(trials):
    trials.killed()


@pytest.mark.fault(
    "SIGTERM", "exit code 143; in training a checkpoint is saved first; `--resume latest`: the same bits"
)
def test_terminated(trials):
    trials.terminated()


@pytest.mark.fault("full disk", "one line, exit code 2; what was finished stays; then the same bits")
def test_full_disk(trials):
    trials.full()


@pytest.mark.fault("read-only output", "one line, exit code 2; what was finished stays; then the same bits")
def test_read_only(trials):
    trials.protected()


@pytest.mark.fault("clock that jumps", "the same bits")
def test_clock(trials):
    trials.clock()


@pytest.mark.fault("two writers", "the second is refused and changes nothing; the same bits")
def test_two_writers(trials):
    trials.two_writers()
