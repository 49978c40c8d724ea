"""The benchmark's models have the released sizes, and its stopwatch stops at the right moments."""

import time

import pytest
import torch
from rich.table import Table

from bench import memory, page, profiling, released, training

MILLIONS = {
    "sd15": {"unet": 859.5, "text_encoder": 123.1, "vae": 83.7},
    "sd21": {"unet": 865.9, "text_encoder": 340.4, "vae": 83.7},
    "sdxl": {"unet": 2567.5, "text_encoder": 123.1, "text_encoder_2": 694.7, "vae": 83.7},
    "sd35-medium": {
        "transformer": 2243.2,
        "text_encoder": 123.7,
        "text_encoder_2": 694.7,
        "text_encoder_3": 4762.3,
        "vae": 83.8,
    },
    "sd35-large": {
        "transformer": 8056.6,
        "text_encoder": 123.7,
        "text_encoder_2": 694.7,
        "text_encoder_3": 4762.3,
        "vae": 83.8,
    },
}
"""As the released files hold them."""


@pytest.mark.parametrize("name", ["sd15", "sd35-medium", "sd35-large"])
def test_the_networks_have_the_released_sizes(name):
    found = {part: memory.parameters(model) / 1e6 for part, model in released.skeleton(name).items()}
    assert found == pytest.approx(MILLIONS[name], abs=0.1)


def test_a_lora_is_counted_as_it_is_made():
    unet = torch.nn.ModuleDict({"to_q": torch.nn.Linear(10, 20), "other": torch.nn.Linear(5, 5)})
    assert memory.lora_parameters(unet) == memory.RANK * 30


def test_the_page_grows_and_keeps_what_was_there(tmp_path):
    table = Table("train", "ratio", title="sd15-random")
    table.add_row("steps/s", "1.50")
    page.append(tmp_path / "b.md", "first", [table])
    before = (tmp_path / "b.md").read_text()
    page.append(tmp_path / "b.md", "second", [table])
    text = (tmp_path / "b.md").read_text()
    assert text.startswith(before.rstrip())
    assert [line for line in text.splitlines() if line.startswith("`")] == ["`first`", "`second`"]
    assert text.endswith("sd15-random:\n\n| train | ratio |\n| --- | --- |\n| steps/s | 1.50 |\n")
    assert f"torch {torch.__version__.split('+')[0]}" in text


class Slow(torch.autograd.Function):
    """The identity, whose gradient takes a while."""

    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(0.05)
        return gradient


class Sleeper(torch.nn.Module):
    """A network that sleeps for 0.03 s forward and 0.05 s backward."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        time.sleep(0.03)
        return (Slow.apply(self.weight * x),)


def test_the_stopwatch_counts_forward_and_backward_and_nothing_else():
    network = Sleeper()
    watch = training.Stopwatch(network, list(network.parameters()))
    for _ in range(2):
        time.sleep(0.1)
        (network(torch.ones(1))[0] * 2).sum().backward()
        time.sleep(0.1)
    assert 2 * 0.08 <= watch.total < 2 * 0.08 + 0.1


def test_a_profile_names_operators_by_their_share_the_largest_first():
    square = torch.ones(300, 300)

    def work():
        return (square @ square).add(1)

    found = profiling.table("train", work)
    names, shares = (list(column.cells) for column in found.columns)
    shares = [float(share.removesuffix("%")) for share in shares]
    assert {"aten::mm", "aten::add"} <= set(names)
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) < 100.5
