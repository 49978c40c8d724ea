"""What a synthetic image is worth to a classifier."""
