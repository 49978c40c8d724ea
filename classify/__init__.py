"""Train one classifier on a labelled image set and score it on real test images."""
