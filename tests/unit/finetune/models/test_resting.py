"""Where frozen text encoders are while an adapter is trained."""

from contextlib import contextmanager

import pipelines
import pytest
import torch

from finetune.command import train
from finetune.config import TrainLora
from finetune.models import trained_text_encoders
from finetune.models.stable_diffusion import family_of
from finetune.outputs import monitor
from orchard.bases import bases

CPU = torch.device("cpu")


class Model:
    """Something that can be moved."""

    def __init__(self, device: str) -> None:
        self.device = device

    def to(self, device: str) -> None:
        self.device = device


def test_models_come_back_to_where_each_was_also_after_an_error():
    models = [Model("cuda:1"), Model("cpu")]
    with pytest.raises(KeyError), trained_text_encoders.on_device(models, "meta"):
        assert [model.device for model in models] == ["meta", "meta"]
        raise KeyError
    assert [model.device for model in models] == ["cuda:1", "cpu"]


def test_only_encoders_that_are_not_trained_rest(tmp_path):
    for with_t5, trains_text, expected in [
        (True, False, ["text_encoder", "text_encoder_2", "text_encoder_3"]),
        (True, True, ["text_encoder_3"]),
        (False, False, ["text_encoder", "text_encoder_2"]),
        (False, True, []),
    ]:
        folder = pipelines.tiny_sd3(tmp_path / f"{with_t5}{trains_text}", with_t5=with_t5)
        base = bases.resolve(str(folder))
        family = family_of(bases.load(base, torch.float32, CPU), base, trains_text=trains_text)
        found = [name for name, part in family.pipe.components.items() if part in family.frozen_text_encoders]
        assert found == expected


def test_encoders_leave_the_device_for_the_steps_and_are_back_for_each_sheet(tmp_path, monkeypatch):
    host, looks, inside = object(), [], []

    @contextmanager
    def on_device(models, device):
        inside.append("host" if device is host else "device")
        yield
        inside.pop()

    sample = monitor.sample_classes
    monkeypatch.setattr(trained_text_encoders, "CPU", host)
    monkeypatch.setattr(trained_text_encoders, "on_device", on_device)
    monkeypatch.setattr(monitor, "sample_classes", lambda *of: looks.append(list(inside)) or sample(*of))
    base = pipelines.tiny(tmp_path / "base")
    small = {"data": "demo", "classes": ("apple",), "shots": 2, "steps": 2, "batch_size": 2}
    train(TrainLora(base=str(base), output=tmp_path / "out", preview_every=1, **small))
    assert looks == [["host", "device"], ["host", "device"], [], []]
