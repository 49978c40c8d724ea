"""Learning-rate schedules against those of diffusers."""

import pytest
import torch
from diffusers.optimization import get_scheduler

from finetune.config import TrainLora
from finetune.training.schedules import learning_rate

NAMES = {"constant": "constant_with_warmup"}


@pytest.mark.parametrize("warm", [0, 1, 7])
@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "cosine_with_restarts"])
def test_the_rates_are_those_of_diffusers_with_a_warm_up_that_begins_a_step_ahead(name, warm):
    cycles = 3 if name == "cosine_with_restarts" else 1
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
    stock = get_scheduler(
        NAMES.get(name, name), optimizer, num_warmup_steps=warm, num_training_steps=50, num_cycles=cycles
    )
    theirs = []
    for _ in range(50):
        theirs.append(stock.get_last_lr()[0])
        optimizer.step()
        stock.step()
    options = TrainLora(
        steps=50, learning_rate=0.02, lr_scheduler=name, lr_warmup_steps=warm, lr_num_cycles=cycles
    )
    options.require_valid()
    ours = [learning_rate(step, options) for step in range(50)]
    assert ours[warm:] == pytest.approx(theirs[warm:], abs=1e-12)
    assert ours[: max(warm - 1, 0)] == pytest.approx(theirs[1:warm], abs=1e-12)


def test_the_usual_warm_up_is_a_twentieth_of_the_steps():
    usual, given = (TrainLora(steps=100, learning_rate=1.0, lr_warmup_steps=warm) for warm in (None, 5))
    assert [learning_rate(step, usual) for step in range(100)] == [
        learning_rate(step, given) for step in range(100)
    ]


REFUSED = [
    ({"lr_warmup_steps": 401}, ("--lr_warmup_steps 401", "0 to 400")),
    ({"lr_num_cycles": 2}, ("--lr_num_cycles 2", "--lr_scheduler cosine_with_restarts")),
    ({"lr_scheduler": "cosine_with_restarts"}, ("--lr_num_cycles 1", "needs 2 to 400")),
    ({"lr_scheduler": "linear", "optimizer": "schedulefree"}, ("--lr_scheduler linear", "schedulefree")),
    ({"betas": (0.9, 1.0)}, ("--betas 0.9 1.0", "below 1")),
    ({"max_grad_norm": -1.0}, ("--max_grad_norm -1.0",)),
]


@pytest.mark.parametrize(("options", "words"), REFUSED)
def test_what_no_schedule_or_optimiser_can_do_is_refused(options, words, refused):
    with refused(*words):
        TrainLora(**options).require_valid()
