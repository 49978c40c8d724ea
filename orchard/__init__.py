"""What more than one stage needs: command lines, image sets, splits, bases, adapters, shards."""

__version__ = "0.1.0"
