"""What GAN and VAE have in common in training: networks, optimisers, and the average that is kept."""

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from torch import nn

from finetune.generators.batches import Batch
from orchard.generators.decoder import START, Decoder, widths

WARM_UP = 10
"""The average begins over a tenth as many steps as there were, so that it forgets the start."""


class Learner(ABC):
    """A model in training, whose ``decoder`` makes the images."""

    curves: ClassVar[Mapping[str, str]]
    """Its losses, the first one first, and what a curve calls them."""

    def __init__(self, decoder: Decoder, decay: float, accelerator: Accelerator) -> None:
        self.accelerator, self.decoder, self.decay = accelerator, decoder, decay
        self.average = copy.deepcopy(decoder).to(accelerator.device).eval().requires_grad_(False)
        self.networks: dict[str, nn.Module] = {}
        """All that is trained, by name, as accelerate has wrapped it."""
        self.optimizers: dict[str, Any] = {}

    @abstractmethod
    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Take one optimiser step; the losses before it, by the names in ``curves``."""

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Count the decoder after step number ``step`` into the average, statistics of its norms included."""
        rate = 1 - min(self.decay, (1 + step) / (WARM_UP + step))
        now = self.decoder.state_dict()
        for name, kept in self.average.state_dict().items():
            if kept.is_floating_point():
                kept.lerp_(now[name], rate)
            else:
                kept.copy_(now[name])

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs."""
        networks = {name: self._bare(network).state_dict() for name, network in self.networks.items()}
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        return {"networks": networks, "optimizers": optimizers, "average": self.average.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`."""
        for name, network in self.networks.items():
            self._bare(network).load_state_dict(state["networks"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.average.load_state_dict(state["average"])

    def _bare(self, network: nn.Module) -> Any:
        return self.accelerator.unwrap_model(network, keep_fp32_wrapper=False)


def adam(network: nn.Module, rate: float, betas: tuple[float, float]) -> torch.optim.Optimizer:
    """Adam over all weights of a network."""
    return torch.optim.Adam(network.parameters(), lr=rate, betas=betas, fused=True)


def downsampling(size: int, width: int, wrap: Any = lambda layer: layer) -> nn.Sequential:
    """(B, 3, S, S) -> (B, C, 4, 4): the convolutions that mirror the decoder's, each one ``wrap`` ped."""
    layers: list[nn.Module] = []
    channels = [3, *widths(size, width)]
    for before, after in itertools.pairwise(channels):
        layers += [wrap(nn.Conv2d(before, after, 4, 2, 1)), nn.LeakyReLU(0.2)]
    assert size == START * 2 ** (len(channels) - 1), size
    return nn.Sequential(*layers)
