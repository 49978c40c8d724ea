"""The base as something to train: model families, LoRA layers, trained text encoders.

Imports `orchard` alone.
"""
