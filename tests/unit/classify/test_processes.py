"""Several processes train the classifier of one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import launches
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classify import command, image_sets
from classify.config import Classify, Training
from classify.mixing import UNION, Mixing
from classify.processes import Share
from classify.trainer import Batch, batch_stream, loss_of
from orchard import devices
from orchard.classifiers import classifier
from orchard.classifiers.networks import build
from orchard.errors import UserError

ROWS, CLASSES, SIZE = 12, 3, 64


class Net(nn.Module):
    """Batch norm in each of its forms, over images and over vectors, with and without weights."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, momentum=0.3), nn.Tanh())
        self.bare = nn.BatchNorm2d(5, affine=False, track_running_stats=False)
        self.after = nn.Sequential(nn.Flatten(), nn.LazyLinear(7), nn.BatchNorm1d(7), nn.Linear(7, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.bare(self.before(images)))


def network(name: str) -> nn.Module:
    """In double precision, without dropout."""
    torch.manual_seed(0)
    model = Net() if name == "own" else build(name, CLASSES, SIZE, seed=0)
    model = model.double().train()
    model(torch.rand(ROWS, 3, SIZE, SIZE).double())
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return model


def learn(options: dict[str, Any], _: str) -> None:
    """One pass; the first process writes its gradients, running statistics and loss."""
    torch.set_num_threads(1)
    state = devices.processes()
    share = Share(rank=state.process_index, count=state.num_processes)
    model = network(options["name"])
    images = torch.rand(ROWS, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).double()
    weights = torch.arange(1, ROWS + 1).double() / sum(range(1, ROWS + 1))
    batch = Batch(images, torch.arange(ROWS) % CLASSES, weights)
    joined = share.joined(model)
    with share.normalising():
        logits = joined(share.of(batch.images))
    loss = loss_of(logits, Batch(images, share.of(batch.labels), share.of(weights)))
    (loss * share.count).backward()
    found = {name: value.grad for name, value in model.named_parameters()}
    found |= dict(model.named_buffers()) | {"loss": share.total(loss)}
    if state.is_main_process:
        torch.save(found, options["path"])


@pytest.mark.parametrize(("name", "count"), [("own", 3), ("cnn", 2)])
def test_shares_add_up_to_the_batch(tmp_path, name, count):
    found = []
    for processes in (1, count):
        path = tmp_path / f"{processes}.pt"
        started = launches.start(processes, {"name": name, "path": str(path)}, call=learn)
        assert launches.wait(started) == [0] * processes
        found.append(torch.load(path))
    alone, together = found
    assert alone.keys() == together.keys()
    for key, value in alone.items():
        assert together[key].numpy() == pytest.approx(value.numpy(), abs=1e-12, rel=1e-9), key


@pytest.mark.parametrize("mixing", [UNION, Mixing(name="weight", real_weight=0.8)])
@pytest.mark.parametrize("augmentation", ["plain", "cutmix"])
def test_shares_of_a_batch_are_its_rows(mixing, augmentation):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    train, options = (pixels, np.arange(20) % CLASSES), Training(batch_size=ROWS, augmentation=augmentation)

    def drawn(share: Share) -> list[Batch]:
        torch.manual_seed(share.rank)
        stream = batch_stream(train, 7, CLASSES, options, mixing, 5, torch.device("cpu"), share)
        return [next(stream) for _ in range(3)]

    whole = drawn(Share())
    for rank in range(3):
        for batch, part in zip(whole, drawn(Share(rank=rank, count=3)), strict=True):
            assert torch.equal(part.images, batch.images[rank::3])
            assert torch.equal(part.labels, batch.labels[rank::3])
            weights = torch.full((ROWS,), 1 / ROWS) if batch.weights is None else batch.weights
            assert part.weights is not None and torch.equal(part.weights, weights[rank::3])


def classified(options: dict[str, Any], _: str) -> None:
    """The command."""
    command.run(Classify(**{**options, "output": Path(options["output"])}))


def test_the_command_gives_the_classifier_of_one_process(tmp_path):
    options = {"train": "demo", "test": "demo", "size": 32, "steps": 2, "batch_size": 24, "precision": "fp32"}
    # So slow that dropout, which is each process's own, moves no weights.
    options["learning_rate"] = 1e-7
    saved = []
    for processes in (1, 2):
        output = tmp_path / str(processes)
        started = launches.start(processes, {**options, "output": str(output)}, call=classified)
        assert launches.wait(started) == [0] * processes
        assert {path.name for path in output.iterdir()} == {
            classifier.FILE,
            command.SCORES,
            command.PREDICTIONS,
        }
        saved.append(classifier.load(output / classifier.FILE))
    (alone, record), (together, its_record) = saved
    assert record == its_record
    for key, value in alone.state_dict().items():
        assert together.state_dict()[key].numpy() == pytest.approx(value.numpy(), abs=1e-5, rel=1e-4), key


def test_another_set_on_another_machine_is_refused(tmp_path):
    options = {"train": "demo", "test": "demo", "size": 32, "steps": 1, "output": str(tmp_path / "out")}
    assert launches.wait(launches.start(2, options, call=by_other_photos)) == [2, 2]
    assert not (tmp_path / "out" / classifier.FILE).exists()


def by_other_photos(options: dict[str, Any], _: str) -> None:
    """The command; the second process sees one photo less."""
    found = image_sets.load(Classify(**options))
    if devices.processes().process_index:
        found = replace(found, train=found.train.keep(found.train.photos[1:]))
    image_sets.load = lambda config: found  # type: ignore[assignment]
    try:
        classified(options, _)
    except UserError as error:
        assert "process 1 has --train" in str(error), error
        raise SystemExit(2) from None


@pytest.mark.parametrize(("batch_size", "count", "better"), [(25, 2, 24), (4, 3, 6), (2, 8, 16)])
def test_a_batch_that_processes_cannot_share_is_refused(batch_size, count, better):
    with pytest.raises(UserError, match=f"--batch_size {batch_size}: .* {count} processes; use {better},"):
        Share(rank=0, count=count).require_whole(batch_size)
    Share(rank=0, count=count).require_whole(better)
