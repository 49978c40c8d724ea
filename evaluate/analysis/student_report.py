"""The student report's own figures, for its models 1 and 4 on the Kaggle fruit set.

Quoted, not measured here: one run each, averages weighted by support, 55 test images.
"""

from collections.abc import Mapping

Reference = Mapping[float, Mapping[str, float]]
"""Share of real images -> metric -> value."""

FRUIT: Reference = {
    1.0: {"accuracy": 0.9636, "precision": 0.9655, "recall": 0.9636, "f1": 0.9630, "roc_auc": 0.9865},
    0.3: {"accuracy": 0.7455, "precision": 0.8243, "recall": 0.7455, "f1": 0.7044, "roc_auc": 0.9161},
}
MODELS = {1.0: "model 1", 0.3: "model 4"}
