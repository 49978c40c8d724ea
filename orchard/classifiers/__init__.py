"""Image classifiers: architectures, pretrained weights, the saved file, prediction.

Imports `orchard.images` and `orchard.files`.
"""
