import sys
import types

import pytest
import torch

from finetune.config import TrainLora
from finetune.training import optimizers
from finetune.training.schedules import learning_rate


def descend(name: str, rate: float, steps: int = 600) -> tuple[torch.optim.Optimizer, float]:
    """Minimise (x - 3)^2 from 0; the optimiser, and how far from 3 it ends."""
    x = torch.nn.Parameter(torch.zeros(1))
    optimizer = optimizers.build(TrainLora(optimizer=name, learning_rate=rate), [x])
    optimizers.set_mode(optimizer, training=True)
    for _ in range(steps):
        optimizer.zero_grad()
        (x - 3).square().sum().backward()
        optimizer.step()
    optimizers.set_mode(optimizer, training=False)
    return optimizer, abs(x.item() - 3)


@pytest.mark.parametrize(("name", "rate"), [("adamw", 0.2), ("schedulefree", 0.5), ("prodigy", 1.0)])
def test_each_optimiser_of_an_installed_package_descends(name, rate):
    optimizer, distance = descend(name, rate)
    assert type(optimizer).__name__ == optimizers.KINDS[name].name
    assert distance < 0.5


def test_a_missing_package_is_named_with_the_fix(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with refused("--optimizer adamw8bit", "pip install bitsandbytes"):
        optimizers.optimizer_class("adamw8bit", 1e-3)


def test_an_installed_package_is_taken(monkeypatch):
    package = types.ModuleType("bitsandbytes.optim")
    package.AdamW8bit = torch.optim.AdamW
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", package)
    assert optimizers.optimizer_class("adamw8bit", 1e-3) is torch.optim.AdamW


def test_prodigy_with_an_adam_learning_rate_is_refused(refused):
    with refused("--optimizer prodigy", "--learning_rate 1"):
        optimizers.optimizer_class("prodigy", 1e-3)


def test_a_schedule_free_rate_stays_after_the_warm_up():
    options = TrainLora(optimizer="schedulefree", steps=100, learning_rate=2.0)
    rates = [learning_rate(step, options) for step in range(100)]
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert set(rates[5:]) == {2.0}
