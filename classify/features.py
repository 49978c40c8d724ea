"""Frozen features and a logistic regression, for few images: the network's last layer solved, not trained."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from orchard.classifiers.networks import last_layer
from orchard.classifiers.predict import features
from orchard.images.arrays import Images

STRENGTH = 0.1
"""scikit-learn's C, the inverse of the penalty on standardised features."""


def solve_last_layer(
    model: nn.Module,
    pixels: Images,
    labels: np.ndarray,
    weights: Tensor | None,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Replace the last layer by a logistic regression: (N, H, W, 3) uint8, (N,) labels, (N,) weights or None.

    The weights sum to 1.
    """
    layer = last_layer(model)
    assert isinstance(layer, nn.Linear), layer
    found = features(model, layer, pixels, device, dtype)
    scaler = StandardScaler().fit(found)
    regression = LogisticRegression(C=STRENGTH, max_iter=2000).fit(
        scaler.transform(found), labels, None if weights is None else weights.numpy() * len(labels)
    )
    slopes, constants = _for_softmax(regression)
    slopes = slopes / scaler.scale_
    constants = constants - slopes @ scaler.mean_
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(slopes))
        layer.bias.copy_(torch.from_numpy(constants))


def _for_softmax(regression: LogisticRegression) -> tuple[np.ndarray, np.ndarray]:
    """(K, F) slopes and (K,) constants; scikit-learn keeps one row for two classes."""
    slopes, constants = regression.coef_, regression.intercept_
    if len(slopes) > 1:
        return slopes, constants
    return np.concatenate([0 * slopes, slopes]), np.concatenate([0 * constants, constants])
