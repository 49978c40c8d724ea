"""`finetune/train_lora.py` under every fault."""

import pipelines
import pytest
import stub_sampler
from safetensors.torch import load_file
from trials import Subject, Trials

from finetune.training import checkpoints
from orchard.adapters import adapter

SIZES = ("--steps", 4, "--save_every", 2, "--keep", 1, "--batch_size", 2, "--rank", 1, "--precision", "fp32")
SHOWN = ("--export", "kohya", "--no_sheets")
CACHE = "cache"


def seen(output):
    """Weights, headers and the card; the log without speeds; one checkpoint of each."""
    found = {}
    for path in output.rglob("*.safetensors"):
        if not {checkpoints.FOLDER, CACHE} & set(path.parts):
            weights = {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}
            found[path.relative_to(output)] = weights, adapter.read(path).provenance
    found["card"] = (output / "README.md").read_bytes()
    for path in output.glob("logs/*"):
        lines = path.read_text().splitlines()
        found[path.name] = [line.partition(', "images_per_second"')[0] for line in lines]
    # Of another step where a signal asked for one.
    return found | {"checkpoints": sorted(path.parent.name for path in output.glob("checkpoints/*/*"))}


def finished(output):
    """Adapters, and steps of each that a checkpoint holds."""
    steps = [
        (path.parent.name, step)
        for path in output.glob("checkpoints/*/step-*")
        for step in range(int(path.name.removeprefix(checkpoints.PREFIX)) + 1)
    ]
    return {*steps, *(path.name for path in output.glob("*.safetensors"))}


def going_on(output):
    """A cache of its own, and what a stopped run asks for once there is something to go on from."""
    there = adapter.begun(output)
    return ("--cache", output / CACHE, *(("--resume", "latest") if there else ()))


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
    "kill -9", 20, "finished adapters and the last checkpoint stay; `--resume latest` ends in the same bits"
)
def test_killed(trials, moments):
    trials.killed(moments)


@pytest.mark.fault(
    "SIGTERM", 20, "code 143; in training a checkpoint is saved first; `--resume latest`: the same bits"
)
def test_terminated(trials, moments):
    trials.terminated(moments)


@pytest.mark.fault("full disk", 20, "one line; what was finished stays; then the same bits", slow=16)
def test_full_disk(trials, moments):
    trials.full(moments)


@pytest.mark.fault("read-only output", 20, "one line; what was finished stays; then the same bits", slow=16)
def test_read_only(trials, moments):
    trials.protected(moments)


@pytest.mark.fault("clock that jumps", 1, "the same bits")
def test_clock(trials):
    trials.clock()


@pytest.mark.fault("two writers", 20, "the second is refused and changes nothing; the same bits", slow=16)
def test_two_writers(trials, moments):
    trials.two_writers(moments)
