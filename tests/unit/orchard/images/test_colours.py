"""Embedded colour profiles: what a camera or an editor says of its numbers holds in every stage."""

import numpy as np
import pictures
import profiles
import pytest
from PIL import Image, ImageCms
from profiles import P3_GREEN, SRGB_GREEN

from evaluate.records import combine, records
from finetune.data import encoded_cache
from orchard.images import images, thumbnails
from orchard.images.images import decode

P3 = profiles.display_p3()
LINEAR = profiles.grey(1)
WHITE = (255, 255, 255)
MIDDLE, SRGB_MIDDLE = 128, 188
"""Half of all light, linear and by the curve of sRGB: 1.055 (128 / 255)^(1 / 2.4) - 0.055."""


def pixel(image: Image.Image, profile: bytes | None, kind: str = "PNG", name: str = "a", **options):
    """The upper left pixel that every stage sees of the image."""
    return decode(pictures.encoded(image, kind, icc_profile=profile, **options), name).getpixel((0, 0))


def require_near(found, expected, within=2):
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= within, found


def green(mode: str = "RGB") -> Image.Image:
    image = Image.new("RGB", (8, 8), P3_GREEN)
    return image.quantize(4) if mode == "P" else image.convert(mode)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
    ],
)
def test_display_p3_becomes_srgb_in_every_format(kind, options):
    require_near(pixel(green(), P3, kind, **options), SRGB_GREEN)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_display_p3_becomes_srgb_in_every_mode(mode):
    require_near(pixel(green(mode), P3), SRGB_GREEN)


def test_a_half_transparent_colour_is_converted_before_it_is_laid_over_white():
    image = green("RGBA")
    image.putalpha(128)
    share = 128 / 255
    require_near(pixel(image, P3), [share * colour + (1 - share) * 255 for colour in SRGB_GREEN])
    assert pixel(green("P"), P3, transparency=0) == WHITE


def test_a_turned_photo_keeps_its_profile():
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    image = Image.new("RGB", (8, 4), WHITE)
    image.paste(P3_GREEN, (0, 0, 8, 2))
    found = decode(pictures.encoded(image, "PNG", icc_profile=P3, exif=exif), "a.png")
    assert found.size == (4, 8)
    require_near(found.getpixel((3, 0)), SRGB_GREEN)
    assert found.getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_greys_follow_their_own_profile_at_every_depth(mode, kind):
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 4), 257 * MIDDLE, np.uint16))
    else:
        image = Image.new(mode, (4, 4), (MIDDLE, 255) if mode == "LA" else MIDDLE)
    require_near(pixel(image, LINEAR, kind), [SRGB_MIDDLE] * 3, within=1)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_greys_with_the_profile_of_an_rgb_screen_stay_grey(mode, caplog):
    value = {"1": 1, "L": MIDDLE, "LA": (MIDDLE, 255)}[mode]
    require_near(pixel(Image.new(mode, (4, 4), value), P3), [255 if mode == "1" else MIDDLE] * 3, within=1)
    assert not caplog.records


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_inks_follow_their_profile(kind):
    """L* of 50 is 18.42% of all light, and so 119 in sRGB; without a profile cyan would be (0, 255, 255)."""
    profile = profiles.cmyk({(1, 0, 0, 0): 128})
    require_near(pixel(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), profile, kind), [119] * 3)
    require_near(pixel(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), profile, kind), WHITE)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA"])
def test_files_without_a_profile_keep_their_pixels(mode):
    image = pictures.noise(1).convert("RGBA").convert(mode) if mode != "P" else pictures.noise(1).quantize(16)
    found = decode(pictures.encoded(image), "a.png")
    assert np.array_equal(np.asarray(found), np.asarray(image.convert("RGB")))


def test_the_profile_of_srgb_itself_changes_nothing():
    image = pictures.noise(1, (64, 64))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    data = pictures.encoded(image, icc_profile=profile.tobytes())
    difference = np.asarray(decode(data, "a.png")).astype(int) - np.asarray(image)
    assert np.abs(difference).max() <= 1


def unfit() -> dict[str, bytes]:
    tail = b" of its own"  # each is said once, so that every test has profiles that no other had
    return {
        "rubbish": b"no profile" + tail,
        "cut": P3[:300],
        "zeros": bytes(400),
        "of greys": profiles.grey(1.5),
        "of inks": profiles.cmyk({}, other=200),
    }


@pytest.mark.parametrize("what", unfit())
def test_a_profile_that_cannot_be_used_is_named_and_the_colours_are_read_as_srgb(what, caplog):
    for name in ("first.png", "second.png"):
        assert pixel(green(), unfit()[what], name=name) == P3_GREEN
    (record,) = caplog.records  # once, since a whole set may share it
    line = record.getMessage()
    assert line.startswith("warning: first.png: its colour profile cannot be used (")
    assert line.endswith("are read as sRGB") and "\n" not in line


def test_a_profile_that_was_lost_on_the_way_is_named(caplog):
    """A JPEG that has the first of two parts of a profile."""
    whole = pictures.encoded(green(), "JPEG", quality=100, subsampling=0, icc_profile=P3)
    assert whole.count(b"ICC_PROFILE\0\x01\x01") == 1
    data = whole.replace(b"ICC_PROFILE\0\x01\x01", b"ICC_PROFILE\0\x01\x02")
    require_near(decode(data, "half.jpg").getpixel((0, 0)), P3_GREEN)
    assert "half.jpg: its colour profile cannot be used (parts of it are missing)" in caplog.text


def test_a_profile_of_two_megabytes_is_used():
    require_near(pixel(green(), profiles.display_p3(2 * 2**20)), SRGB_GREEN)


def test_thumbnails_and_guides_are_of_converted_pixels():
    raw = pictures.photo("a.png", "apple", data=pictures.encoded(green(), icc_profile=P3))
    plain = pictures.photo("b.png", "apple", data=pictures.encoded(Image.new("RGB", (8, 8), SRGB_GREEN)))
    for one, other in zip(*map(thumbnails.of_photos, ([raw], [plain])), strict=True):
        assert np.array_equal(one, other)


def test_what_is_kept_of_pixels_is_not_found_by_another_way_of_decoding(monkeypatch, tmp_path, refused):
    photo = pictures.photo("a.png", "apple")
    made = encoded_cache.Keys(
        autoencoder="a", text_encoders="t", setting={}, sizes={photo.sha256: (8, 8)}, fit="pad"
    )
    before = made.photo(photo), made.prompt("a red one")
    monkeypatch.setattr(encoded_cache, "DECODING", images.DECODING + 1)
    assert made.photo(photo) != before[0]
    assert made.prompt("a red one") == before[1]
    # What an experiment of an older version did not note was decoded without profiles.
    (tmp_path / records.EXPERIMENT).write_text("{}")
    (tmp_path / records.RECORDS).write_text(
        '{"design": "substitute", "ratio": 1.0, "shots": null, "seed": 0}\n'
    )
    with refused("decoding 1 (requested: 2)", "another experiment"):
        records.require_same(tmp_path, {"decoding": 2})
    with refused("decoding 1 (requested: 2)"):
        combine.require_alike([tmp_path], {"decoding": 2})
