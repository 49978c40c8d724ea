"""The networks: the report's CNN, and torchvision's classifiers by name."""

import difflib
from typing import Any

import torch
from torch import Tensor, nn

from orchard.errors import UserError

CNN = "cnn"
WIDTHS = (32, 64, 128, 256)
HIDDEN = 512
LARGE = 128
"""Pixels from which the CNN's first convolution halves the image, to keep the cost down."""


class Standardise(nn.Module):
    """(B, 3, H, W) in [0, 1] -> the same shape, channels about zero with unit spread.

    Mean and deviation are ImageNet's, as torchvision's own recipes have them.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.deviation


class Classifier(nn.Module):
    """(B, 3, H, W) floats in [0, 1] -> (B, K) logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.standardise = Standardise()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        output = self.network(self.standardise(images))
        # googlenet and inception_v3 add auxiliary heads in training.
        return output if isinstance(output, Tensor) else output.logits


def build(name: str, classes: int, size: int, seed: int) -> nn.Module:
    """A network with weights drawn from ``seed``: (B, 3, size, size) in [0, 1] -> (B, classes).

    Raises:
        UserError: no such network, or it does not take images of that size.
    """
    assert classes >= 1, classes
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _cnn(classes, size) if name == CNN else _torchvision(name, classes, size)
        model = Classifier(network)
    _require_size(model, name, size)
    return model.to(memory_format=torch.channels_last)


def _cnn(classes: int, size: int) -> nn.Sequential:
    """Four blocks of convolution and pooling, two fully connected layers; about 0.9 M weights."""
    layers: list[nn.Module] = []
    before = 3
    for width in WIDTHS:
        halve = before == 3 and size >= LARGE
        kernel, stride = (5, 2) if halve else (3, 1)
        layers += [
            nn.Conv2d(before, width, kernel, stride=stride, padding=kernel // 2, bias=False),
            nn.MaxPool2d(2),  # first, so that the rest works on a quarter of the values
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        before = width
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(4 * before, HIDDEN),
        nn.ReLU(inplace=True),
        nn.Dropout(0.2),
        nn.Linear(HIDDEN, classes),
    )


def _torchvision(name: str, classes: int, size: int) -> nn.Module:
    import torchvision

    require_name(name)
    extra: dict[str, Any] = {"num_classes": classes}
    if name.startswith("vit_"):
        extra["image_size"] = size
    if name in ("googlenet", "inception_v3"):
        extra["init_weights"] = True
    try:
        return torchvision.models.get_model(name, weights=None, **extra)
    except (RuntimeError, ValueError) as error:
        raise _wrong_size(name, size, error) from None


def require_name(name: str) -> None:
    """Raise `UserError` with the nearest names unless ``name`` is a network that `build` knows."""
    if name == CNN:
        return
    import torchvision

    known = [CNN, *torchvision.models.list_models(module=torchvision.models)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or [CNN, "resnet18", "mobilenet_v3_small"]
        raise UserError(f"--model {name}: no such network; near are {', '.join(near)}")


def _require_size(model: nn.Module, name: str, size: int) -> None:
    model.eval()
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 3, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise _wrong_size(name, size, error) from None
    model.train()


def _wrong_size(name: str, size: int, error: Exception) -> UserError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UserError(f"--model {name}: does not take --size {size} ({reason[:120]}); use 224, or --model cnn")
