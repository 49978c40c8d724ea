"""How large anything that is read may be, so that no file takes all memory."""

RECIPE = 2**18
"""Bytes of a recipe; ours have a few hundred."""
TEXT = 256 * 2**20
"""Bytes of any other text: metadata, manifests, records. Ours have a few megabytes at most."""
RECORDS = 2**32
"""Bytes of `records.jsonl`: a hundred kilobytes per run, in sweeps of any length."""
IMAGE_FILE = 2**30
"""Bytes of an image file: more than any of `orchard.images.images.FORMATS` needs for the most pixels."""
ANNOTATION = 16 * 2**20
"""Bytes of a Pascal VOC or YOLO file, which is of one photo."""
SIDE = 2048
"""Pixels of a classifier's input."""
