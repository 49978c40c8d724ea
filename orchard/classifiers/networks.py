"""The networks: the report's CNN, and torchvision's and timm's classifiers by name."""

import difflib
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from orchard.classifiers import pretrained as weights
from orchard.classifiers.pretrained import FEATURES, TIMM
from orchard.errors import UserError

CNN = "cnn"
WIDTHS = (32, 64, 128, 256)
HIDDEN = 512
LARGE = 128
"""Pixels from which the CNN's first convolution halves the image, to keep the cost down."""
USUAL = (224, 256, 299, 336, 384, 448, 512)
"""Pixels: sizes that published networks were made for, the commonest first."""
UNFIT = (RuntimeError, ValueError, TypeError, AssertionError)
"""What networks raise for images of a size that they do not take."""
AUXILIARY = ("network.aux1.", "network.aux2.", "network.AuxLogits.")
"""Before the keys of heads that googlenet and inception_v3 had in older versions, for a loss of their own."""


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
        return self.network(self.standardise(images))


def build(
    name: str, classes: int, size: int, seed: int, pretrained: str = "", labels: Sequence[str] = ()
) -> nn.Module:
    """A network with weights drawn from ``seed``: (B, 3, size, size) in [0, 1] -> (B, classes).

    ``pretrained`` names weights to begin with, as `--pretrained` does; the last layer is new where they
    are for other classes, by number and, where they say so, by the names in ``labels``. ``features:`` before
    the name asks for a last layer that can be solved.

    Raises:
        UserError: no such network, it does not train on images of that size, its last layer is none that
            can be solved, or the weights are not its own.
    """
    assert classes >= 1, classes
    solved, name = name.startswith(FEATURES), name.removeprefix(FEATURES)
    require_name(name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            model = _fitting(name, classes, size)
        except UNFIT as error:
            raise _wrong_size(name, classes, size, error) from None
    if solved and not _is_affine(last_layer(model)):
        raise UserError(
            f"--model {FEATURES}{name}: its last layer is not linear with a bias; "
            f"take e.g. {FEATURES}resnet18"
        )
    if pretrained:
        weights.load_into(model.network, name, pretrained, labels)
    return model.to(memory_format=torch.channels_last)


def _fitting(name: str, classes: int, size: int) -> Classifier:
    """The network; raises one of `UNFIT` where a step of training does not take images of that size.

    The step is taken on the device `meta`, in shapes alone. Some networks do more in training than else.
    """
    make = _cnn if name == CNN else _timm if name.startswith(TIMM) else _torchvision
    model = Classifier(make(name, classes, size)).train()
    values = chain(model.named_parameters(), model.named_buffers())
    shapes = {key: value.to("meta") for key, value in values}
    with torch.no_grad():
        functional_call(model, shapes, torch.zeros(2, 3, size, size, device="meta"))
    return model


def _is_affine(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and layer.bias is not None


def _cnn(_: str, classes: int, size: int) -> nn.Module:
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
        # Heads for a second loss, which is not ours, and which ask for 299 pixels.
        extra |= {"init_weights": True, "aux_logits": False}
    return torchvision.models.get_model(name, weights=None, **extra)


def _timm(name: str, classes: int, size: int) -> nn.Module:
    import timm

    plain = name.removeprefix(TIMM)
    # Networks with position embeddings are made for one size; the others do not know the argument.
    sized: dict[str, Any] = {"img_size": size} if "vit" in plain or "swin" in plain or "deit" in plain else {}
    return timm.create_model(plain, pretrained=False, num_classes=classes, **sized)


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


def _wrong_size(name: str, classes: int, size: int, error: Exception) -> UserError:
    """The refusal, with a size that was tried."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    works = next((f"--size {side}, or " for side in USUAL if _takes(name, classes, side)), "")
    return UserError(f"--model {name}: does not take --size {size} ({reason[:120]}); use {works}--model cnn")


def _takes(name: str, classes: int, size: int) -> bool:
    try:
        _fitting(name, classes, size)
    except UNFIT:
        return False
    return True


def without_auxiliary(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a classifier that an older version saved, as it is built now."""
    return {key: value for key, value in state.items() if not key.startswith(AUXILIARY)}


def last_layer(model: nn.Module) -> nn.Module:
    """The last layer that is linear, else the last one with weights."""
    layers = [layer for layer in model.modules() if next(layer.parameters(recurse=False), None) is not None]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return (linear or layers)[-1]
