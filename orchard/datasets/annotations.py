"""Files with boxes: beside an image, in ``labels`` parallel to ``images``, or for a whole set."""

import functools
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from orchard.errors import listed
from orchard.files import checked_json
from orchard.images import boxes
from orchard.images.boxes import Annotated
from orchard.images.images import Annotation

FOLDERS = ("annotations", "labels")
"""Folders at a set's root that hold boxes, and are no classes, unless there are images in them."""
IMAGES, LABELS = "images", "labels"
_log = logging.getLogger(__name__)


class Annotations:
    """Where boxes of the images ``files`` below ``root`` may stand; they are read when they are asked for."""

    def __init__(self, root: Path, files: Sequence[PurePosixPath], everything: Sequence[Path]) -> None:
        self.root, self.files = root, files
        places = (root, root / "annotations")
        tables = (path for path in everything if path.suffix.lower() == ".json" and path.parent in places)
        self.tables = sorted(path for path in tables if _is_coco(path))

    @property
    def sources(self) -> frozenset[str]:
        """The files that are for the whole set, relative to its root."""
        return frozenset(path.relative_to(self.root).as_posix() for path in self.tables)

    def of(self, file: PurePosixPath) -> tuple[Annotation, ...]:
        """Readers of what there is of one image, the nearest first."""
        image = self.root / file
        found: list[Annotation] = []
        if (path := image.with_suffix(".xml")).is_file():
            found.append(partial(boxes.voc, path))
        for path in _yolo_files(image):
            if path.is_file():
                found.append(partial(boxes.yolo, path))
        return (*found, lambda: self._listed.get(file, Annotated())) if self.tables else tuple(found)

    @functools.cached_property
    def _listed(self) -> Mapping[PurePosixPath, Annotated]:
        """What COCO files say of each image, under whatever part of its path they name it by."""
        named: dict[str, list[PurePosixPath]] = defaultdict(list)
        for file in self.files:
            for start in range(len(file.parts)):
                named["/".join(file.parts[start:])].append(file)
        found: dict[PurePosixPath, Annotated] = {}
        unclear = []
        for path in self.tables:
            for name, annotated in boxes.coco(path).items():
                files = named.get(str(PurePosixPath(name.replace("\\", "/"))), [])
                if len(files) > 1:
                    unclear.append(name)
                elif files and annotated.boxes:
                    found.setdefault(files[0], annotated)
        if unclear:
            _log.warning(
                "warning: annotations name %d images by what may be any of several, which is passed over: "
                "%s; write their paths below the set",
                len(unclear),
                listed(unclear),
            )
        return found


def _yolo_files(image: Path) -> list[Path]:
    """``a.txt`` beside ``a.jpg``, and for ``images/…/a.jpg`` the file ``labels/…/a.txt``."""
    found = [image.with_suffix(".txt")]
    parts = image.absolute().parts
    if IMAGES in parts[:-1]:
        last = len(parts) - 1 - parts[::-1].index(IMAGES, 1)
        found.append(Path(*parts[:last], LABELS, *parts[last + 1 :]).with_suffix(".txt"))
    return found


def _is_coco(path: Path) -> bool:
    """Whether a JSON file has the lists of one, and is not something else that lies beside photos."""
    try:
        data = checked_json.read_bytes(path)
    except (OSError, ValueError):
        return False
    return all(f'"{key}"'.encode() in data for key in ("images", "annotations", "file_name"))
