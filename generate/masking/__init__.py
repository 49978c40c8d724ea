"""Masks of photos: where the object is, by boxes, GrabCut, mask images or a segmenter."""
