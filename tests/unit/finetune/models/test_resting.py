"""Where text encoders are while prompts are read and an adapter is trained."""

import pipelines
import pytest
import torch

from finetune.models import trained_text_encoders
from finetune.models.families import family_of
from orchard.bases import bases

CPU = torch.device("cpu")


class Model(torch.nn.Module):
    """Something that can be moved, and tells where everything is when it is called."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.looks = device, []

    def to(self, device: str) -> None:
        self.device = device

    def forward(self, number: torch.Tensor) -> torch.Tensor:
        self.looks.append((self.device, number.device.type))
        return number


def test_encoders_are_on_the_device_one_at_a_time_and_come_back_also_after_an_error():
    device, host = torch.device("meta"), CPU
    first, second, there = models = [Model(host), Model(host), Model(device)]
    places = []
    with pytest.raises(KeyError), trained_text_encoders.in_turn(models, device):
        for model in (first, second, there, first):
            model(torch.zeros(1))
            places.append([one.device.type for one in models])
        raise KeyError
    assert places == [
        ["meta", "cpu", "meta"],
        ["cpu", "meta", "meta"],
        ["cpu", "meta", "meta"],
        ["meta", "cpu", "meta"],
    ]
    assert first.looks == [(device, "meta")] * 2 and second.looks == [(device, "meta")]
    assert [one.device for one in models] == [host, host, device]
    first(torch.zeros(1))
    assert first.looks[-1] == (host, "cpu")


def test_on_one_device_nothing_is_moved():
    model = Model(CPU)
    model.to = None
    with trained_text_encoders.in_turn([model], CPU):
        model(torch.zeros(1))
    assert model.looks == [(CPU, "cpu")]


def test_all_encoders_that_are_there_take_their_turn(tmp_path):
    for with_t5, expected in [
        (True, ["text_encoder", "text_encoder_2", "text_encoder_3"]),
        (False, ["text_encoder", "text_encoder_2"]),
    ]:
        folder = pipelines.tiny_sd3(tmp_path / str(with_t5), with_t5=with_t5)
        base = bases.resolve(str(folder))
        family = family_of(bases.load(base, torch.float32, CPU), base)
        found = [name for name, part in family.pipe.components.items() if part in family.all_text_encoders]
        assert found == expected
