"""What stages share: files, command lines, images, datasets, bases, adapters, classifiers, shards."""

__version__ = "0.1.0"
