"""Boxes beside photos: which file says what of whom, and where they are in the upright, framed photo."""

import json
from dataclasses import replace

import numpy as np
import pictures
import pytest
from pictures import ORIENTATION, encoded, noise, write
from PIL import Image

from orchard.datasets import folders
from orchard.images.boxes import Annotated, Box
from orchard.images.framing import framed_boxes
from orchard.images.images import decode, framed

SIZE = (40, 30)
"""Width and height of the photos here."""


def voc(*corners, size=SIZE) -> bytes:
    names = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><bndbox>{''.join(f'<{n}>{v}</{n}>' for n, v in zip(names, c, strict=True))}"
        "</bndbox></object>"
        for c in corners
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>{sides}{objects}</annotation>".encode()


def coco(*images: tuple[str, list[float]], size=SIZE) -> bytes:
    return json.dumps(
        {
            "images": [
                {"id": i, "file_name": name, "width": size[0], "height": size[1]}
                for i, (name, _) in enumerate(images)
            ],
            "annotations": [{"image_id": i, "bbox": box} for i, (_, box) in enumerate(images)],
        }
    ).encode()


def found(root, files, photo=None) -> dict[str, tuple[Box, ...]]:
    """The boxes of apple/a.png and pear/b.png, with these files beside them."""
    data = photo or encoded(noise(0, SIZE))
    names = {} if any("apple" in name and name.endswith(".png") for name in files) else {"apple/a.png": data}
    write(root, {**names, "pear/b.png": encoded(noise(1, SIZE)), **files})
    return {photo.path: photo.boxes() for photo in folders.read(root).photos}


def test_a_photo_without_annotation_has_no_boxes(tmp_path):
    assert found(tmp_path, {}) == {"apple/a.png": (), "pear/b.png": ()}


def test_voc_pixels_count_from_one_and_include_the_last(tmp_path):
    boxes = found(tmp_path, {"apple/a.xml": voc((1, 1, 40, 30), (11, 6, 20, 15))})
    assert boxes["apple/a.png"] == ((0, 0, 40, 30), (10, 5, 20, 15))


def test_a_size_of_nothing_is_that_of_the_photo(tmp_path):
    assert found(tmp_path, {"apple/a.xml": voc((1, 1, 9, 9), size=(0, 0))})["apple/a.png"] == ((0, 0, 9, 9),)


def test_yolo_boxes_are_shares_around_a_centre(tmp_path):
    boxes = found(tmp_path, {"apple/a.txt": b"0 0.5 0.5 0.5 0.2\n\n12 .25 0.5 0.1 1\n"})
    assert boxes["apple/a.png"] == (pytest.approx((10, 12, 30, 18)), pytest.approx((8, 0, 12, 30)))


def test_yolo_boxes_lie_in_labels_parallel_to_images(tmp_path):
    write(tmp_path, {"labels/train/apple/a.txt": b"0 0.5 0.5 1 1"})
    write(tmp_path / "images", {"train/apple/a.png": encoded(noise(0, SIZE))})
    (photo,) = folders.read(tmp_path / "images").photos
    assert photo.boxes() == ((0, 0, 40, 30),)


def test_yolo_lines_are_no_caption_and_captions_are_no_boxes(tmp_path):
    found(tmp_path, {"apple/a.txt": b"0 0.5 0.5 0.5 0.2", "pear/b.txt": b"4 pears"})
    apple, pear = folders.read(tmp_path).photos
    assert (apple.text, len(apple.boxes())) == (None, 1)
    assert (pear.text, pear.boxes()) == ("4 pears", ())


@pytest.mark.parametrize("place", ["instances.json", "annotations/instances_train.json"])
@pytest.mark.parametrize("name", ["a.png", "apple/a.png", "./apple/a.png", "apple\\a.png"])
def test_coco_files_name_photos_by_any_end_of_their_path(tmp_path, place, name):
    boxes = found(tmp_path, {place: coco((name, [10, 5, 20, 15]))})
    assert boxes == {"apple/a.png": ((10, 5, 30, 20),), "pear/b.png": ()}
    images = folders.read(tmp_path)
    assert images.classes == ("apple", "pear")
    assert images.notes == ()


def test_a_coco_name_that_several_photos_have_is_left_out_and_said(tmp_path, caplog):
    files = {
        "pear/a.png": encoded(noise(2, SIZE)),
        "x.json": coco(("a.png", [1, 1, 2, 2]), ("b.png", [0, 0, 9, 9])),
    }
    boxes = found(tmp_path, files)
    assert boxes == {"apple/a.png": (), "pear/a.png": (), "pear/b.png": ((0, 0, 9, 9),)}
    assert "a.png" in caplog.text


def test_other_json_files_are_still_named_as_not_read(tmp_path):
    found(tmp_path, {"notes.json": b"{}"})
    assert folders.read(tmp_path).notes == ("ignored 1 other files: notes.json",)


def test_the_file_beside_goes_before_the_one_for_the_set(tmp_path):
    files = {
        "x.json": coco(("a.png", [1, 1, 9, 9]), ("b.png", [1, 1, 9, 9])),
        "apple/a.xml": voc((1, 1, 2, 2)),
    }
    assert found(tmp_path, files) == {"apple/a.png": ((0, 0, 2, 2),), "pear/b.png": ((1, 1, 10, 10),)}


def test_boxes_are_clipped_to_the_photo_and_what_is_left_of_none_is_dropped(tmp_path, caplog):
    corners = (-5, 3, 50, 10), (9, 9, 5, 5), (60, 1, 70, 9), (39.5, 1, 40, 30)
    assert found(tmp_path, {"apple/a.xml": voc(*corners)})["apple/a.png"] == (
        (0, 2, 40, 10),
        (38.5, 0, 40, 30),
    )
    assert "apple/a.png: 2 of its boxes left out" in caplog.text


def test_boxes_for_a_photo_of_another_size_are_refused(tmp_path, refused):
    with refused("apple/a.png: is 40 x 30 pixels, its boxes are for 80 x 60"):
        found(tmp_path, {"apple/a.xml": voc((1, 1, 2, 2), size=(80, 60))})


def test_shares_above_one_are_refused_by_file(tmp_path, refused):
    with refused("a.txt", "30 is no share of a photo's side"):
        found(tmp_path, {"apple/a.txt": b"0 30 20 5 5"})


def marked(orientation: int, kind: str) -> tuple[bytes, tuple[int, int, int, int]]:
    """A turned photo with one white rectangle, and the place of it in the file's own pixels."""
    left, top, right, bottom = 24, 4, 36, 10
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    pixels[top:bottom, left:right] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"exif": exif} | ({"quality": 100} if kind == "JPEG" else {})
    return encoded(Image.fromarray(pixels), kind, **options), (left + 1, top + 1, right, bottom)


def bright(image: Image.Image) -> tuple[int, int, int, int]:
    return image.convert("L").point(lambda value: 255 * (value > 128)).getbbox()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_a_photo_as_it_is_stored_turn_with_it(tmp_path, orientation, kind):
    data, corners = marked(orientation, kind)
    (box,) = found(tmp_path, {"apple/a.xml": voc(corners)}, data)["apple/a.png"]
    assert box == bright(decode(data, "a"))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_boxes_of_the_upright_photo_stay(tmp_path, kind):
    data, _ = marked(6, kind)
    left, top, right, bottom = bright(decode(data, "a"))
    xml = voc((left + 1, top + 1, right, bottom), size=SIZE[::-1])
    assert found(tmp_path, {"apple/a.xml": xml}, data)["apple/a.png"] == ((left, top, right, bottom),)


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize("size", [(300, 200), (200, 300), (257, 256), (500, 101)])
@pytest.mark.parametrize("to", [(64, 64), (96, 48), (64, 96)])
def test_a_box_moves_with_its_image(size, to, fit):
    width, height = size
    box = Box(width * 0.4, height * 0.3, width * 0.62, height * 0.71)
    pixels = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = map(round, box)
    pixels[top:bottom, left:right] = (255, 0, 0)
    image = np.asarray(framed(Image.fromarray(pixels), to, fit)).astype(int)
    red = Image.fromarray(((image[..., 0] - image[..., 1] > 128) * 255).astype(np.uint8))
    (moved,) = framed_boxes([Box(left, top, right, bottom)], (height, width), to, fit)
    assert moved == pytest.approx(red.getbbox(), abs=1.0)


def test_a_box_that_a_crop_cuts_away_is_gone():
    boxes = [Box(0, 0, 40, 100), Box(150, 0, 250, 100)]
    assert framed_boxes(boxes, (100, 300), (50, 50), "crop") == ((25.0, 0.0, 50.0, 50.0),)
    assert framed_boxes(boxes, (100, 300), (60, 60)) == ((0, 20, 8, 40), (30, 20, 50, 40))


def test_boxes_travel_with_the_photos_that_are_written(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # shown after a quarter turn
    lying = encoded(noise(0, SIZE), exif=exif)
    write(tmp_path / "set", {"apple/a.png": lying, "apple/a.xml": voc((3, 5, 20, 30), size=SIZE[::-1])})
    photos = pictures.image_set(
        [replace(one, split="train") for one in folders.read(tmp_path / "set").photos]
    )
    folders.write(tmp_path / "copy", photos, photos.keep(()))
    (after,) = [photo.boxes() for photo in folders.read(tmp_path / "copy").photos]
    assert after == ((2, 4, 20, 30),) == photos.photos[0].boxes()


def test_the_boxes_of_a_photo_are_read_once():
    plain, read = pictures.photo("a.png", "apple", data=encoded(noise(0, (8, 8)))), []

    def annotation():
        read.append(1)
        return Annotated((Box(0, 0, 4, 4),))

    photo = replace(plain, annotations=(annotation,))
    assert photo.boxes() == photo.boxes() == (Box(0, 0, 4, 4),)
    assert len(read) == 1
