"""Real training images that samples are started from (img2img), each used as often as the others."""

import functools
from dataclasses import dataclass

from orchard.datasets import sources
from orchard.errors import UserError
from orchard.images.images import TRAIN, Photo, measure, sha256
from orchard.images.splits import ranked


@dataclass(frozen=True)
class InitImages:
    """The training images of one class."""

    label: str
    seed: int
    photos: tuple[Photo, ...]

    def of(self, index: int) -> Photo:
        """The guide of row ``index``: every image once, in an order of its own, before any comes again."""
        cycle, place = divmod(index, len(self.photos))
        return _order(self, cycle)[place]

    def require_whole(self, count: int) -> None:
        """Raise `UserError` naming one of the first ``count`` guides that is no whole image."""
        used = [self.of(index) for index in range(min(count, len(self.photos)))]
        for found in measure(used):
            if isinstance(found, UserError):
                raise found

    def digest(self) -> str:
        """A hash of the set of images."""
        return sha256("".join(sorted(photo.sha256 for photo in self.photos)).encode())


@functools.lru_cache(maxsize=16)
def _order(guides: InitImages, cycle: int) -> list[Photo]:
    return ranked(guides.photos, "guide", guides.seed, guides.label, cycle)


def load(data: str, label: str, seed: int, *, option: str = "--image_guidance") -> InitImages:
    """The guides of a class from the training split of a real set; test images are never among them.

    Raises:
        UserError: the set cannot be read, or has no training image of the class.
    """
    photos = tuple(photo for photo in training_images(data, option) if photo.label == label)
    if not photos:
        raise UserError(f"{option} {data}: no training image of class {label}; name a set that has some")
    return InitImages(label, seed, photos)


@functools.cache
def training_images(data: str, option: str) -> tuple[Photo, ...]:
    """Those of all classes of the real set that ``option`` names."""
    return sources.load(data, option=option).of(TRAIN).photos
