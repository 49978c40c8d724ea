"""Several processes train the classifier of one."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import launches
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classify import command, image_sets
from classify.batch_parts import Part
from classify.config import Classify, Training
from classify.mixing import UNION, Mixing
from classify.trainer import Batch, Task, batch_stream, fit, loss_of
from orchard import devices, heartbeat
from orchard.classifiers import classifier
from orchard.classifiers.networks import build
from orchard.cli import cli
from orchard.errors import UserError

CLASSES, SIZE = 3, 64
CPU = torch.device("cpu")
RATE = 1e-3


class Net(nn.Module):
    """Batch norm over images and over vectors, with and without weights, running statistics and momentum."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, momentum=0.3), nn.Tanh())
        self.bare = nn.BatchNorm2d(5, affine=False, track_running_stats=False)
        self.mean = nn.BatchNorm2d(5, momentum=None)
        self.after = nn.Sequential(nn.Flatten(), nn.LazyLinear(7), nn.BatchNorm1d(7), nn.Linear(7, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.mean(self.bare(self.before(images))))


def network(name: str, images: Tensor) -> nn.Module:
    """In double precision, without dropout, after a first look at the images."""
    torch.manual_seed(0)
    model = Net() if name == "own" else build(name, CLASSES, SIZE, seed=0)
    model = model.double().train()
    model(images)
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return model


def learn(options: dict[str, Any], _: str) -> None:
    """One pass; the first process writes its gradients, running statistics and loss."""
    torch.set_num_threads(1)
    part, rows = own_part(), options["rows"]
    images = torch.rand(rows, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).double() + 5
    model = network(options["name"], images)
    weights = torch.arange(1, rows + 1).double() / sum(range(1, rows + 1))
    network_of_all = part.data_parallel(model)
    with part.normalising():
        logits = network_of_all(part.of(images))
    loss = loss_of(logits, Batch(images, part.of(torch.arange(rows) % CLASSES), part.of(weights)))
    (loss * part.count).backward()
    found = {name: value.grad for name, value in model.named_parameters()}
    found |= dict(model.named_buffers()) | {"loss": part.summed(loss)}
    if part.rank == 0:
        torch.save(found, options["path"])


def own_part() -> Part:
    state = devices.processes()
    return Part(rank=state.process_index, count=state.num_processes)


@pytest.mark.parametrize(("name", "rows", "count"), [("own", 12, 3), ("own", 3, 3), ("cnn", 12, 2)])
def test_parts_add_up_to_the_batch(tmp_path, name, rows, count):
    found = []
    for processes in (1, count):
        path = tmp_path / f"{processes}.pt"
        started = launches.start(processes, {"name": name, "rows": rows, "path": str(path)}, call=learn)
        assert launches.wait(started) == [0] * processes
        found.append(torch.load(path))
    alone, together = found
    assert alone.keys() == together.keys()
    for key, value in alone.items():
        assert together[key].numpy() == pytest.approx(value.numpy(), abs=1e-11, rel=1e-8), key


def train(options: dict[str, Any], _: str) -> None:
    """A whole training of a network without dropout; the first process writes its weights and losses."""
    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    task = Task(
        train=(pixels, np.arange(40) % CLASSES),
        validation=(pixels[:0], np.zeros(0, np.int64)),
        classes=CLASSES,
        options=Training(model="resnet18", batch_size=12, steps=3, learning_rate=RATE),
        seed=0,
        device=CPU,
        dtype=getattr(torch, options["dtype"]),
        part=own_part(),
    )
    losses = []
    fitted = fit(task, lambda step: losses.append(step.loss))
    if task.part.rank == 0:
        torch.save((dict(fitted.model.named_parameters()), losses), options["path"])


@pytest.mark.parametrize(("dtype", "apart"), [("float32", 0.05), ("bfloat16", 0.25)])
def test_training_goes_the_way_of_one_process(tmp_path, dtype, apart):
    """AdamW makes much of rounding in gradients near zero; of gradients that are not shared it makes 0.4."""
    found = []
    for processes in (1, 2):
        path = tmp_path / f"{processes}.pt"
        started = launches.start(processes, {"dtype": dtype, "path": str(path)}, call=train)
        assert launches.wait(started) == [0] * processes
        found.append(torch.load(path))
    (alone, losses), (together, its_losses) = found
    assert its_losses == pytest.approx(losses, rel=apart)
    off = torch.cat([(alone[name] - together[name]).abs().flatten() for name in alone])
    assert off.mean() < apart * RATE


@pytest.mark.parametrize("mixing", [UNION, Mixing(name="weight", real_weight=0.8)])
@pytest.mark.parametrize("augmentation", ["plain", "cutmix"])
def test_parts_of_a_batch_are_its_rows(mixing, augmentation):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    images, options = (pixels, np.arange(20) % CLASSES), Training(batch_size=12, augmentation=augmentation)

    def drawn(part: Part) -> list[Batch]:
        torch.manual_seed(part.rank)
        stream = batch_stream(images, 7, CLASSES, options, mixing, 5, CPU, part)
        return [next(stream) for _ in range(3)]

    whole = drawn(Part())
    for rank in range(3):
        for batch, part in zip(whole, drawn(Part(rank=rank, count=3)), strict=True):
            assert torch.allclose(part.images, batch.images[rank::3], atol=1e-6)
            assert torch.equal(part.labels, batch.labels[rank::3])
            weights = torch.full((12,), 1 / 12) if batch.weights is None else batch.weights
            assert part.weights is not None and torch.equal(part.weights, weights[rank::3])


OPTIONS = {"train": "demo", "test": "demo", "size": 32, "steps": 2, "batch_size": 24, "precision": "fp32"}


def classified(options: dict[str, Any], _: str) -> None:
    """The command."""
    command.run(Classify(**{**options, "output": Path(options["output"])}))


def test_the_command_writes_what_one_process_writes(tmp_path):
    saved = []
    for processes in (1, 2):
        output = tmp_path / str(processes)
        started = launches.start(processes, {**OPTIONS, "output": str(output)}, call=classified)
        assert launches.wait(started) == [0] * processes
        assert {path.name for path in output.iterdir()} == {
            classifier.FILE,
            command.SCORES,
            command.PREDICTIONS,
        }
        saved.append(classifier.load(output / classifier.FILE)[1])
    assert saved[0] == saved[1]


def test_a_process_that_is_killed_ends_the_others_and_leaves_nothing(tmp_path):
    options = {**OPTIONS, "steps": 10_000, "output": str(tmp_path / "out")}
    started = launches.start(2, options, call=killed_while_training)
    assert launches.wait(started) == [heartbeat.CODE, -signal.SIGKILL]
    assert list((tmp_path / "out").iterdir()) == []


def killed_while_training(options: dict[str, Any], _: str) -> None:
    """The command; the second process dies at its third step."""
    whole = command.fit

    def dies(task: Task, on_step: Any) -> Any:
        if task.part.rank:
            on_step = lambda step: step.index < 3 or os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        return whole(task, on_step)

    command.fit = dies
    sys.argv = ["classify", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    cli.run(Classify, command.run, "python -m classify")


@pytest.mark.parametrize("what", ["photos", "order", "precision", "steps"])
def test_processes_that_would_do_otherwise_are_refused(tmp_path, what):
    options = {**OPTIONS, "output": str(tmp_path / "out"), "what": what}
    assert launches.wait(launches.start(2, options, call=differing)) == [2, 2]
    assert not (tmp_path / "out").exists()


def differing(options: dict[str, Any], _: str) -> None:
    """The command; the second process has one photo less, or another order, arithmetic or option."""
    what = options.pop("what")
    found = image_sets.load(Classify(**options))
    if devices.processes().process_index:
        photos = found.train.photos
        photos = {"photos": photos[1:], "order": photos[::-1]}.get(what, photos)
        found = replace(found, train=replace(found.train, photos=photos))
        options |= {"precision": {"precision": "bf16"}, "steps": {"steps": 3}}.get(what, {})
        devices.precisions = lambda device: ("fp32", "bf16")  # type: ignore[assignment]
    image_sets.load = lambda config: found  # type: ignore[assignment]
    try:
        classified(options, _)
    except UserError as error:
        named = "train" if what in ("photos", "order") else what
        assert f"not all processes do the same: process 1 has {named}" in str(error), error
        raise SystemExit(2) from None


@pytest.mark.parametrize(("batch_size", "count", "better"), [(25, 2, 24), (4, 3, 3), (2, 8, 8)])
def test_a_batch_that_processes_cannot_divide_is_refused(batch_size, count, better):
    with pytest.raises(UserError, match=f"--batch_size {batch_size}: .* {count} processes; use {better},"):
        Part(count=count).require_equal(batch_size)
    Part(count=count).require_equal(better)
