"""The networks: the report's CNN, and torchvision's and timm's classifiers by name."""

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from orchard import pretrained as weights
from orchard.errors import UserError
from orchard.heads import last_layer
from orchard.pretrained import FEATURES, TIMM

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
        """Of each channel, less its mean and over its deviation."""
        return (images - self.mean) / self.deviation


class Classifier(nn.Module):
    """(B, 3, H, W) floats in [0, 1] -> (B, K) logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.standardise = Standardise()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """The network's logits for standardised images."""
        output = self.network(self.standardise(images))
        # googlenet and inception_v3 add auxiliary heads in training.
        return output if isinstance(output, Tensor) else output.logits


def build(
    name: str, classes: int, size: int, seed: int, pretrained: str = "", labels: Sequence[str] = ()
) -> nn.Module:
    """A network with weights drawn from ``seed``: (B, 3, size, size) in [0, 1] -> (B, classes).

    ``pretrained`` names weights to begin with, as `--pretrained` does; the last layer is new where they
    are for other classes, by number and, where they say so, by the names in ``labels``. ``features:`` before
    the name asks for a last layer that can be solved.

    Raises:
        UserError: no such network, it does not take images of that size, its last layer is none that can
            be solved, or the weights are not its own.
    """
    assert classes >= 1, classes
    solved, name = name.startswith(FEATURES), name.removeprefix(FEATURES)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _network(name, classes, size)
    if solved and not isinstance(last_layer(network), nn.Linear):
        raise UserError(
            f"--model {FEATURES}{name}: its last layer is not linear; take e.g. {FEATURES}resnet18"
        )
    if pretrained:
        weights.load_into(network, name, pretrained, labels)
    model = Classifier(network)
    _require_size(model, name, size)
    return model.to(memory_format=torch.channels_last)


def _network(name: str, classes: int, size: int) -> nn.Module:
    if name == CNN:
        return _cnn(classes, size)
    require_name(name)
    return _timm(name, classes, size) if name.startswith(TIMM) else _torchvision(name, classes, size)


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

    extra: dict[str, Any] = {"num_classes": classes}
    if name.startswith("vit_"):
        extra["image_size"] = size
    if name in ("googlenet", "inception_v3"):
        extra["init_weights"] = True
    try:
        return torchvision.models.get_model(name, weights=None, **extra)
    except (RuntimeError, ValueError) as error:
        raise _wrong_size(name, size, error) from None


def _timm(name: str, classes: int, size: int) -> nn.Module:
    import timm

    plain = name.removeprefix(TIMM)
    # Networks with position embeddings are made for one size; the others do not know the argument.
    sized: dict[str, Any] = {"img_size": size} if "vit" in plain or "swin" in plain or "deit" in plain else {}
    try:
        return timm.create_model(plain, pretrained=False, num_classes=classes, **sized)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise _wrong_size(name, size, error) from None


def require_name(name: str) -> None:
    """Raise `UserError` with the nearest names unless ``name`` is a network that `build` knows."""
    plain = name.removeprefix(FEATURES)
    if plain == CNN:
        return
    known = _timm_names() if plain.startswith(TIMM) else _torchvision_names()
    if plain not in known:
        near = difflib.get_close_matches(plain, known, n=3) or [CNN, "resnet18", "mobilenet_v3_small"]
        raise UserError(f"--model {name}: no such network; near are {', '.join(near)}")


def _torchvision_names() -> list[str]:
    import torchvision

    return [CNN, *torchvision.models.list_models(module=torchvision.models)]


def _timm_names() -> list[str]:
    try:
        import timm
    except ImportError:
        raise UserError(
            "--model timm:…: needs the package timm; pip install -e '.[timm]', or take a torchvision network"
        ) from None
    return [f"{TIMM}{name}" for name in timm.list_models()]


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
