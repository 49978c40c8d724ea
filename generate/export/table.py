"""Images beside `metadata.csv`, one line an image, as `datasets` reads it and any spreadsheet."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from generate.export.items import FACTS, Item, put


def write(folder: Path, classes: Sequence[str], items: Iterable[Item]) -> str:
    """``images/apple-000000.png`` and ``metadata.csv``: as `generate.export.items.Writer`."""
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["file_name", "label", *FACTS])
        table.writeheader()
        for item in items:
            name = f"images/{item.name}"
            put(folder / name, item.data)
            boxes = item.facts["box"]
            facts = {**item.facts, "box": None if boxes is None else json.dumps(boxes)}
            table.writerow({"file_name": name, "label": item.label, **facts})
    return "a line of metadata.csv is an image; datasets reads it as `imagefolder`"
