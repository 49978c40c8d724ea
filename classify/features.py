"""Frozen features and a logistic regression, for few images: the network's last layer solved, not trained."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from classify.mixing import weights_of
from classify.trainer import Fitted, Step, Task, fit
from orchard.classifiers.networks import last_layer
from orchard.classifiers.predict import forward
from orchard.classifiers.pretrained import FEATURES

STRENGTH = 0.1
"""scikit-learn's C, the inverse of the penalty on standardised features."""


def fit_classifier(task: Task, on_step: Callable[[Step], None] | None = None) -> Fitted:
    """As `classify.trainer.fit`; with ``features:NAME`` the last layer is a logistic regression instead.

    The features are the network's with ``options.pretrained``, else those it learns from ``train`` alone
    (from ``synthetic`` where that is empty) in ``options.steps`` steps.
    """
    if not task.options.model.startswith(FEATURES):
        return fit(task, on_step)
    if task.options.pretrained:
        fitted = Fitted(model=task.network().eval(), validation_accuracy=None)
    else:
        learned = task.train if len(task.train[1]) or task.synthetic is None else task.synthetic
        fitted = fit(replace(task, train=learned, synthetic=None), on_step)
    solve_last_layer(fitted.model, task)
    return replace(fitted, validation_accuracy=task.scored(fitted.model))


def solve_last_layer(model: nn.Module, task: Task) -> None:
    """Make the last layer a logistic regression on the task's images, mixed as it says."""
    pixels, labels = task.images()
    layer = last_layer(model)
    assert isinstance(layer, nn.Linear), layer
    found = features(model, layer, pixels, task.device, task.dtype)
    weights = weights_of(task.mixing, torch.arange(len(labels)) < len(task.train[1]))
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


def features(
    model: nn.Module, layer: nn.Module, pixels: np.ndarray, device: torch.device, dtype: torch.dtype
) -> np.ndarray:
    """(N, H, W, 3) uint8 -> (N, F) float64, what reaches ``layer``."""
    caught: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].float().cpu()))
    try:
        forward(model, pixels, device, dtype)
    finally:
        hook.remove()
    return torch.cat(caught).double().numpy()
