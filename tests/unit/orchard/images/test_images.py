import io
import struct
import zlib

import numpy as np
import pytest
from conftest import either
from pictures import BLUE, RED, encoded, half_a_jpeg, halves, image_set, noise, numbered, photo
from PIL import Image

from orchard.errors import UserError
from orchard.images import images
from orchard.images.images import decode, measure, pixels, require_labelled, square

WHITE = (255, 255, 255)


def near(pixel: tuple[int, ...], colour: tuple[int, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) < 40


@pytest.mark.parametrize(
    ("orientation", "size", "red_at", "blue_at"),
    [
        (6, (6, 8), (3, 1), (3, 6)),  # a quarter turn clockwise: left becomes top
        (8, (6, 8), (3, 6), (3, 1)),
        (3, (8, 6), (6, 3), (1, 3)),
        (1, (8, 6), (1, 3), (6, 3)),
        (None, (8, 6), (1, 3), (6, 3)),
    ],
)
def test_photo_is_turned_upright_by_its_tag(orientation, size, red_at, blue_at):
    image = decode(halves(orientation), "a.jpg")
    assert (image.mode, image.size) == ("RGB", size)
    assert near(image.getpixel(red_at), RED)
    assert near(image.getpixel(blue_at), BLUE)


@pytest.mark.parametrize("orientation", [None, 0, 9])
def test_pixels_stay_as_they_are_without_a_valid_tag(orientation):
    plain = Image.open(io.BytesIO(halves())).convert("RGB")
    assert np.array_equal(np.asarray(decode(halves(orientation), "a.jpg")), np.asarray(plain))


def test_invisible_colour_becomes_white():
    clear_red = Image.new("RGBA", (4, 4), (*RED, 0))
    assert decode(encoded(clear_red), "a.png").getcolors() == [(16, WHITE)]


def test_transparent_palette_entry_becomes_white():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 255, 0, 128, 0])
    image.putpixel((1, 2), 1)
    result = decode(encoded(image, transparency=0), "a.png")
    assert sorted(result.getcolors()) == [(1, (0, 128, 0)), (15, WHITE)]


def test_half_transparent_pixel_blends():
    image = Image.new("RGBA", (1, 1), (*RED, 128))
    # Over white, green and blue are 255 * (1 - 128 / 255) = 127.
    assert decode(encoded(image), "a.png").getpixel((0, 0)) == (255, 127, 127)


@pytest.mark.parametrize("mode", ["LA", "L", "RGB"])
def test_other_kinds_of_transparency_become_white(mode):
    options = {} if mode == "LA" else {"transparency": 0 if mode == "L" else (0, 0, 0)}
    assert decode(encoded(Image.new(mode, (2, 2), 0), **options), "a.png").getcolors() == [(4, WHITE)]


def test_sixteen_bit_grey_is_scaled_not_clipped():
    deep = np.array([[0, 257 * 10, 257 * 128, 65535]], np.uint16)
    row = np.asarray(decode(encoded(Image.fromarray(deep)), "a.png"))[0]
    assert row.tolist() == [[0] * 3, [10] * 3, [128] * 3, [255] * 3]


def test_pixels_without_a_known_range_are_refused(refused):
    floats = Image.fromarray(np.array([[0.0, 1.0]], np.float32))
    with refused("a.tif", "from 0 to 1, not 8 or 16 bits"):
        decode(encoded(floats, "TIFF"), "a.tif")


def test_print_colours_are_converted():
    red_ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert near(decode(encoded(red_ink, "JPEG", quality=95), "a.jpg").getpixel((4, 4)), RED)


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), BLUE)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, "a.gif").getcolors() == [(16, RED)]


def test_suffix_does_not_matter():
    assert decode(encoded(noise(1), "WEBP", lossless=True), "a.jpg").tobytes() == noise(1).tobytes()


def bomb() -> bytes:
    """A PNG of a few bytes that promises 30000 x 30000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "none of JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of JPEG, PNG"),
        (half_a_jpeg(), "truncated"),
        (encoded(noise(0, (64, 64)))[:900], "truncated"),
        (bomb(), "900000000 pixels"),
    ],
    ids=["empty", "web page", "postscript", "half a jpeg", "half a png", "bomb"],
)
def test_broken_file_is_named_in_one_line(data, reason, refused):
    with refused("apple/b.jpg: not a whole image", reason, "replace or remove the file"):
        decode(data, "apple/b.jpg")


def with_one_broken():
    good = [photo(f"apple/{i}.jpg", "apple", data=encoded(noise(i), "JPEG")) for i in range(3)]
    return image_set([*good[:2], photo("apple/half.jpg", "apple", data=half_a_jpeg()), good[2]])


def test_reading_pixels_stops_at_a_broken_file(refused):
    with refused("apple/half.jpg"):
        pixels(with_one_broken().photos, 8)


def test_whole_files_are_measured_upright_and_the_rest_named():
    photos = [*with_one_broken().photos, photo("turned.jpg", "apple", data=halves(6))]
    found = {p.path: size for p, size in zip(photos, measure(photos), strict=True)}
    broken = found.pop("apple/half.jpg")
    assert isinstance(broken, UserError) and str(broken).startswith("apple/half.jpg: ")
    assert list(found) == ["apple/0.jpg", "apple/1.jpg", "apple/2.jpg", "turned.jpg"]
    assert found["turned.jpg"] == (8, 6)
    assert all(isinstance(size, tuple) for size in found.values())


def test_pixels_are_upright():
    photos = [photo("a.jpg", "a", data=halves(6)), photo("b.png", "a", data=encoded(noise(1, (4, 4))))]
    result = pixels(photos, 4, fit="crop")
    assert (result.shape, result.dtype) == ((2, 4, 4, 3), np.uint8)
    assert near(tuple(result[0, 0, 2]), RED)
    assert near(tuple(result[0, 3, 2]), BLUE)
    assert np.array_equal(result[1], np.asarray(noise(1, (4, 4))))


def test_padding_keeps_the_ends_that_the_centre_square_loses():
    wide = Image.new("RGB", (30, 10), BLUE)
    wide.paste(RED, (0, 0, 10, 10))
    source = photo("a.png", "a", data=encoded(wide))
    cropped, padded = (pixels([source], 30, fit=fit)[0] for fit in ("crop", "pad"))
    assert cropped[:, 10:, 0].max() < 16  # but for the ripples of the filter, no red
    assert near(tuple(padded[15, 5]), RED)
    assert (padded[:9] == 255).all()
    assert (padded[21:] == 255).all()
    assert np.array_equal(pixels([source], 30)[0], padded)  # all of a picture, unless told otherwise


def test_going_through_a_smaller_size_loses_its_detail():
    source = photo("a.png", "a", data=encoded(noise(2, (32, 32))))
    expected = square(square(noise(2, (32, 32)), 4), 16)
    assert np.array_equal(pixels([source], 16, through=4)[0], np.asarray(expected))
    assert np.array_equal(pixels([source], 16, through=16), pixels([source], 16))


def test_no_photos_give_no_pixels():
    assert pixels([], 8).shape == (0, 8, 8, 3)


def test_class_without_photos_keeps_its_place():
    images_ = image_set([photo("1", "pear"), photo("2", "apple")], ["apple", "fig", "pear"])
    assert images_.counts() == {"apple": 1, "fig": 0, "pear": 1}
    assert images_.labels().tolist() == [2, 0]
    assert images_.keep(images_.photos[:1]).classes == images_.classes


def test_split_keeps_the_class_list():
    both = image_set([photo("1", "x", images.TRAIN), photo("2", "y", images.TEST)])
    assert [p.path for p in both.of(images.TEST).photos] == ["2"]
    assert both.of(images.TEST).counts() == {"x": 0, "y": 1}


def test_short_class_is_named_with_its_count(refused):
    with refused("class plum has 1 image in training, needs at least 2 (to split)"):
        require_labelled(numbered({"apple": 4, "plum": 1}), 2, "to split")
    with refused("class plum has 0 images"):
        require_labelled(numbered({"apple": 4, "plum": 0}), 1, "to train")


def test_hash_is_of_the_bytes():
    assert images.sha256(b"abc").startswith("ba7816bf8f01cfea")  # FIPS 180-2, appendix B.1


@either("fruit")
def test_kaggle_photos_all_decode(fruit):
    from orchard.datasets import folders

    everything = folders.read(fruit, also=("mixed",))
    found = measure(everything.photos)
    assert len(found) == 300
    assert not [problem for problem in found if isinstance(problem, UserError)]
