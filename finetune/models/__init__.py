"""The base as something to train: model families, adapter layers, trained text encoders."""
