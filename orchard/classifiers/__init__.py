"""Image classifiers: architectures, pretrained weights, the saved file, prediction."""
