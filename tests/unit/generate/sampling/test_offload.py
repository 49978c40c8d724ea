"""Where weights are with --offload; a stand-in pipeline notes it, since moving them needs a GPU."""

import pytest
import torch

from generate.config import Generate
from generate.sampling import pipeline
from orchard.bases import bases

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Pipe:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.calls = []

    def enable_model_cpu_offload(self, device):
        self.calls.append(("model", device))

    def enable_sequential_cpu_offload(self, device):
        self.calls.append(("layers", device))


@pytest.mark.parametrize(
    ("offload", "loaded_on", "calls"),
    [("none", GPU, []), ("model", CPU, [("model", GPU)]), ("layers", CPU, [("layers", GPU)])],
)
def test_offloaded_weights_begin_in_the_hosts_memory(monkeypatch, offload, loaded_on, calls):
    pipe, places = Pipe(), []

    def load(base, dtype, device):
        places.append(device)
        return pipe

    monkeypatch.setattr(bases, "load", load)
    monkeypatch.setattr(pipeline.loras, "attach", lambda *_: None)
    pipe.scheduler = None
    config = Generate(offload=offload)
    pipeline.require_device(config, GPU)
    pipeline.Loader(config, torch.float16, GPU)(bases.resolve("mini"), None)
    assert (places, pipe.calls) == ([loaded_on], calls)


@pytest.mark.parametrize(("offload", "expected"), [("none", 1), ("model", 0), ("layers", 0)])
def test_nothing_is_denoised_ahead_while_weights_move(offload, expected):
    assert pipeline.depth(Generate(offload=offload)) == expected


def test_compiled_weights_do_not_move(refused):
    with refused("--compile", "--offload"):
        pipeline.require_device(Generate(offload="model", compile=True), GPU)
