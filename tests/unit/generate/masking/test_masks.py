"""Masks of photos: boxes, GrabCut, mask images, and what is refused of them."""

import numpy as np
import pictures
import pytest
from PIL import Image

from generate.config import Generate
from generate.masking import masks
from generate.masking.masks import NoMaskError
from generate.planning import repainting
from orchard.datasets import folders

SIZE = (48, 32)
OBJECT = (12, 8, 30, 24)
XML = (
    "<annotation><object><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
    "</object></annotation>"
)


def drawn(box=OBJECT, size=SIZE, white=255) -> Image.Image:
    image = Image.new("L", size)
    image.paste(white, box)
    return image


def voc(box=OBJECT) -> bytes:
    left, top, right, bottom = box
    return XML.format(left + 1, top + 1, right, bottom).encode()


@pytest.fixture
def real(tmp_path):
    """Two photos, a green disc on purple noise each, without boxes."""
    for seed, name in enumerate(("train/apple/a.png", "train/pear/a.png")):
        noise = np.random.default_rng(seed).integers(0, 40, (SIZE[1], SIZE[0], 3))
        noise[:, :, ::2] += 150
        y, x = np.mgrid[: SIZE[1], : SIZE[0]]
        noise[((x - 20.5) / 8) ** 2 + ((y - 15.5) / 7) ** 2 < 1] = (20, 200, 20)
        pictures.write(tmp_path / "real", {name: pictures.encoded(Image.fromarray(noise.astype(np.uint8)))})
    return tmp_path / "real"


def found(real, name: str):
    photos = folders.read(real).photos
    photo = photos[0]
    return masks.source(name, photos)(photo, photo.image())


def loaded(real, label="apple", **options):
    repainting.init_images.training_images.cache_clear()
    return repainting.load(Generate(**{"repaint": "object", "data": str(real), **options}), label, 32)


def test_a_mask_of_boxes_is_their_insides(real):
    pictures.write(real, {"train/apple/a.xml": voc()})
    assert np.array_equal(np.asarray(found(real, "boxes")), np.asarray(drawn()))


def test_grabcut_finds_the_object_in_its_box(real):
    pictures.write(real, {"train/apple/a.xml": voc()})
    photo = folders.read(real).photos[0]
    green = np.asarray(photo.image())[:, :, 1] > 150
    mask = np.asarray(found(real, "grabcut")) > 0
    assert (mask & green).sum() / (mask | green).sum() > 0.9
    assert np.array_equal(mask, np.asarray(found(real, "grabcut")) > 0)


@pytest.mark.parametrize("name", ["boxes", "grabcut"])
def test_a_photo_without_box_has_no_mask(real, name):
    with pytest.raises(NoMaskError, match="no box"):
        found(real, name)


def test_grabcut_needs_some_background(real):
    pictures.write(real, {"train/apple/a.xml": voc((0, 0, *SIZE))})
    with pytest.raises(NoMaskError, match="no background"):
        found(real, "grabcut")


@pytest.mark.parametrize("name", ["train/apple/a.png", "apple/a.webp", "apple/a.PNG"])
def test_mask_images_have_the_name_of_their_photo(tmp_path, real, name):
    kind = "WEBP" if name.endswith("webp") else "PNG"
    data = pictures.encoded(drawn(), kind, **({"lossless": True} if kind == "WEBP" else {}))
    pictures.write(tmp_path / "masks", {name: data})
    assert np.array_equal(np.asarray(found(real, str(tmp_path / "masks"))), np.asarray(drawn()))


def test_a_name_that_two_photos_share_is_the_mask_of_neither(tmp_path, real):
    pictures.write(tmp_path / "masks", {"a.png": pictures.encoded(drawn())})
    with pytest.raises(NoMaskError, match="no mask image"):
        found(real, str(tmp_path / "masks"))


FAULTS = {
    "empty": (drawn((0, 0, 0, 0)), "the mask is empty"),
    "black": (drawn(white=90), "the mask is empty"),
    "full": (drawn((0, 0, *SIZE)), "the mask covers everything"),
    "another size": (drawn(size=(24, 16)), "is 24 x 16 pixels, train/apple/a.png is 48 x 32"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_mask_image_that_is_no_use_is_refused_in_one_line(tmp_path, real, refused, name):
    mask, words = FAULTS[name]
    pictures.write(tmp_path / "masks", {"apple/a.png": pictures.encoded(mask)})
    with refused("--mask", "a.png", words):
        loaded(real, mask=str(tmp_path / "masks"))


def test_a_folder_without_masks_is_refused(tmp_path, real, refused):
    (tmp_path / "masks").mkdir()
    with refused(f"--mask {tmp_path / 'masks'}: neither mask images"):
        loaded(real, mask=str(tmp_path / "masks"))


@pytest.mark.parametrize(
    ("box", "options", "words"),
    [
        ((0, 0, *SIZE), {}, "its mask covers everything 1 (train/apple/a.png)"),
        (OBJECT, {"mask_dilate": 40}, "its mask covers everything 1"),
        (OBJECT, {"mask_dilate": -40}, "its mask is empty 1"),
    ],
)
def test_a_class_whose_boxes_leave_nothing_is_refused_in_one_line(real, refused, box, options, words):
    pictures.write(real, {"train/apple/a.xml": voc(box)})
    with refused("no training image of class apple can be repainted", words):
        loaded(real, **options)


def test_a_mask_moves_with_its_photo_into_the_padded_square(real):
    pictures.write(real, {"train/apple/a.xml": voc()})
    repaints = loaded(real)
    (photo,) = repaints.guides.photos
    canvas = repaints.canvas(photo)
    inside = canvas.repainted(canvas.passes[0])
    # 48 x 32 becomes 32 x 21, six rows below the upper edge.
    assert Image.fromarray(inside).getbbox() == (8, 11, 20, 22)
    assert canvas.boxes[0] == pytest.approx((8, 6 + 8 * 21 / 32, 20, 6 + 24 * 21 / 32))


def test_without_boxes_the_box_of_a_row_goes_around_its_mask(tmp_path, real):
    pictures.write(tmp_path / "masks", {"apple/a.png": pictures.encoded(drawn())})
    repaints = loaded(real, mask=str(tmp_path / "masks"))
    (canvas,) = repaints.canvases.values()
    assert canvas.boxes == ((8, 11, 20, 22),)
