"""The end of a network: the layer that gives the logits."""

from torch import nn


def last_layer(model: nn.Module) -> nn.Module:
    """The last layer that is linear, else the last one with weights."""
    layers = [layer for layer in model.modules() if next(layer.parameters(recurse=False), None) is not None]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return (linear or layers)[-1]
