"""How the training photos of the embedded base are framed."""

import io
import json
import sys

import numpy as np
import pictures
import pyarrow as pa
import pyarrow.parquet as pq
from conftest import ROOT
from PIL import Image

sys.path.insert(0, str(ROOT / "scripts"))

from mini import data

RED, GREY, WHITE = (200, 20, 20), (90, 90, 90), (255, 255, 255)


def letterboxed(background: tuple[int, int, int]) -> dict:
    """A row: 80 x 40 px with a red bar from end to end but for 4 px, on a white canvas of 80 x 64 px."""
    photo = np.full((40, 80, 3), background, np.uint8)
    photo[15:25, 4:76] = RED
    canvas = np.full((64, 80, 3), 255, np.uint8)
    canvas[12:52] = photo
    file = io.BytesIO()
    Image.fromarray(canvas).save(file, "PNG")
    return {"image": {"bytes": file.getvalue()}, "label": 0, "photo_box": [0, 12, 80, 52]}


def test_copies_of_a_set_kept_apart_are_left_out_mirrored_or_not():
    rng = np.random.default_rng(0)
    others = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(4)]
    # Two that are alike say how near two photos may come that are not one.
    others.append(others[3] // 2 + rng.integers(0, 64, (64, 64, 3), dtype=np.uint8))
    own = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    photos = data.Photos(
        pixels=np.concatenate([own[:2], [others[0], others[1][:, ::-1]], own[2:]]),
        labels=np.arange(5),
        white=np.zeros(5, bool),
        names=tuple("abcde"),
    )
    files = [pictures.encoded(Image.fromarray(one)) for one in others]
    found = data.apart(photos, [pictures.photo(str(i), "x", data=file) for i, file in enumerate(files)])
    assert found.labels.tolist() == [0, 1, 4]
    assert np.array_equal(found.pixels, own)


def test_photos_on_white_are_whole_and_every_second_scene(tmp_path):
    rows = [letterboxed(background) for background in (WHITE, WHITE, GREY, GREY)]
    table = pa.Table.from_pylist(rows)
    features = {"info": {"features": {"label": {"names": ["bar"]}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "train.parquet")
    photos = data.load(tmp_path, tmp_path)
    assert (photos.names, photos.labels.tolist()) == (("bar",), [0] * 4)
    # Whole scenes get white bars, and yet their background is no white one.
    assert photos.white.tolist() == [True, True, False, False]
    edges, top = photos.pixels[:, 32, 0], photos.pixels[:, 4, 32]
    assert [tuple(map(int, row)) for row in edges] == [WHITE, WHITE, GREY, RED]
    assert [tuple(map(int, row)) for row in top] == [WHITE, WHITE, WHITE, GREY]
    again = data.load(tmp_path, tmp_path)
    assert all(np.array_equal(getattr(photos, k), getattr(again, k)) for k in ("pixels", "labels", "white"))
