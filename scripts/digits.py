"""scikit-learn's handwritten digits as a folder of class folders: ``python scripts/digits.py FOLDER``.

1797 grey images of 8x8 pixels in ten classes, which come with the package.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

DEEPEST = 16


def main(folder: Path) -> None:
    """Write ``folder/7/0123.png`` and so on."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / DEEPEST).round().astype(np.uint8)).save(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
