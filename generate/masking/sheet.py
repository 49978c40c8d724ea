"""What `--dry_run` shows of `--repaint`: photos with what will be repainted of them in red."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from generate.outputs import contact_sheets
from generate.planning.plan import ClassPlan
from orchard.files.atomic import file_name, whole_file
from orchard.images.images import square

RED = (255, 0, 0)


def write(folder: Path, plans: Iterable[ClassPlan]) -> list[Path]:
    """Write ``sheets/masks/apple.png`` for each class; where they are."""
    paths = []
    for plan in plans:
        assert plan.repaints is not None
        photos = plan.repaints.guides.photos[: contact_sheets.COLUMNS * contact_sheets.ROWS]
        tinted = []
        for photo in photos:
            canvas = plan.repaints.canvas(photo)
            image = square(photo.image(), canvas.side)
            red = Image.blend(image, Image.new("RGB", image.size, RED), 0.5)
            mask = canvas.repainted(canvas.passes[0]).astype(np.uint8) * 255
            tinted.append(Image.composite(red, image, Image.fromarray(mask)))
        path = folder / "sheets" / "masks" / f"{file_name(plan.label)}.png"
        with whole_file(path) as aside:
            contact_sheets.sheet(tinted).save(aside, "PNG")
        paths.append(path)
    return paths
