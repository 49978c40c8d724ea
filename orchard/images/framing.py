"""Ways to bring an image to a shape; apart from the pixels, so that options can name them at once."""

from typing import Literal, get_args

Fit = Literal["pad", "crop"]
"""pad: all of it, on white; crop: what its centre has of the shape."""
FITS: tuple[Fit, ...] = get_args(Fit)
