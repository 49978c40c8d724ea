"""COCO: images and one JSON of categories, images and annotations, of which an image has its known boxes."""

import io
import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from generate.export.items import Item, put


def write(folder: Path, classes: Sequence[str], items: Iterable[Item]) -> str:
    """``images/apple-000000.png`` and ``annotations.json``: as `generate.export.items.Writer`.

    Besides COCO's own keys an image has its ``category_id``, since without boxes it has no annotation.
    """
    categories = [{"id": number, "name": label} for number, label in enumerate(classes, 1)]
    boxes = images = boxed = 0
    with (
        (folder / "annotations.json").open("w", encoding="utf-8") as file,
        tempfile.TemporaryFile("w+", encoding="utf-8") as annotations,
    ):
        file.write(f'{{"categories": {json.dumps(categories)},\n"images": [')
        for images, item in enumerate(items, 1):
            name, category = f"images/{item.name}", item.number + 1
            put(folder / name, item.data)
            width, height = Image.open(io.BytesIO(item.data)).size
            size = {"width": width, "height": height}
            said = {"id": images, "file_name": item.name, **size, "category_id": category}
            file.write(_line(said, first=images == 1))
            boxed += bool(item.facts["box"])
            for left, top, right, bottom in item.facts["box"] or ():
                boxes += 1
                box = [left, top, right - left, bottom - top]
                said = {"id": boxes, "image_id": images, "category_id": category, "bbox": box}
                said |= {"area": box[2] * box[3], "iscrowd": 0}
                annotations.write(_line(said, first=boxes == 1))
        file.write('],\n"annotations": [')
        annotations.seek(0)
        shutil.copyfileobj(annotations, file)
        file.write("]}\n")
    return f"annotations.json has {boxes} boxes, of {boxed} of {images} images"


def _line(value: object, *, first: bool) -> str:
    return f"{'' if first else ','}\n{json.dumps(value)}"
