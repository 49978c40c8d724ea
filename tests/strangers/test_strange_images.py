"""Images of every format and mode, cut off and changed at any place, and bombs."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pictures
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from mutations import damaged, fuzz, works_or_refuses
from PIL import Image

from orchard.datasets import folders
from orchard.files import size_limits
from orchard.images.images import FORMATS, decode, sized

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I;16B", "I", "F")
KINDS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM", "MPO", "TGA", "ICO", "JPEG2000", "PCX")


def drawn(mode: str) -> Image.Image:
    """A small image of the mode, no two rows alike."""
    if mode in ("I", "F") or mode.startswith("I;16"):
        kind = {"I": np.int32, "F": np.float32, "I;16B": ">u2"}.get(mode, np.uint16)
        return Image.fromarray(np.arange(20 * 12).reshape(12, 20).astype(kind) * 200)
    image = pictures.noise(1, (20, 12))
    if mode == "PA":
        return image.convert("P").convert("PA")
    if mode == "LAB":
        return Image.merge("LAB", image.split())
    return image.convert("RGBA").convert(mode) if mode in ("LA", "RGBA") else image.convert(mode)


def written() -> dict[str, bytes]:
    """Every pair of format and mode that can be written, and some odd ones."""
    found = {}
    for kind in KINDS:
        for mode in MODES:
            try:
                found[f"{kind} {mode}"] = pictures.encoded(drawn(mode), kind)
            except (OSError, ValueError, KeyError):
                continue
    frames = [pictures.noise(seed, (20, 12)) for seed in range(3)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "AVIF"):
        found[f"{kind} animated"] = pictures.encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    palette = drawn("P")
    found["PNG P transparent bytes"] = pictures.encoded(palette, "PNG", transparency=bytes(range(256)))
    found["PNG L transparent"] = pictures.encoded(drawn("L"), "PNG", transparency=7)
    found["PNG I;16 transparent"] = pictures.encoded(drawn("I;16"), "PNG", transparency=200)
    found["JPEG turned"] = pictures.halves(6)
    return found


WHOLE = written()
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def read(data: bytes) -> Image.Image | None:
    """What every stage makes of a file: upright RGB, brought to both shapes."""

    def whole() -> Image.Image:
        image = decode(data, "x.img")
        assert image.mode == "RGB"
        for fit in ("crop", "pad"):
            assert sized(image, 32, through=16, fit=fit).shape == (32, 32, 3)
        return image

    return works_or_refuses(whole)


@pytest.mark.parametrize("name", WHOLE)
def test_every_format_and_mode_is_read_or_refused(name):
    found = read(WHOLE[name])
    kind, _, mode = name.partition(" ")
    # An MPO's first picture is a JPEG, and is read as one.
    if kind in FORMATS and mode not in ("I", "F"):
        assert found is not None
        assert found.size in ((20, 12), (6, 8))
    elif kind not in (*FORMATS, "MPO"):
        assert found is None


def test_formats_of_all_kinds_were_written():
    assert {name.partition(" ")[0] for name in WHOLE} >= set(FORMATS)
    assert len(WHOLE) > 50


@fuzz(250)
@given(data=st.data())
def test_a_damaged_image_is_read_or_refused(data):
    whole = WHOLE[data.draw(st.sampled_from(sorted(WHOLE)))]
    read(data.draw(damaged(whole)))


@fuzz(100)
@given(data=st.binary(max_size=200), head=st.sampled_from([whole[:12] for whole in WHOLE.values()]))
def test_noise_behind_the_first_bytes_of_a_format_is_refused(data, head):
    read(head + data)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 1)])
def test_the_narrowest_images_are_brought_to_size(size):
    assert read(pictures.encoded(pictures.noise(0, size))) is not None


def png(width: int, height: int, depth: int, colour: int, data: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG file of these fields, its image data packed."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), *more, (b"IDAT", zlib.compress(data, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def ztxt(megabytes: int) -> bytes:
    """A chunk's compressed text."""
    return b"Comment\0\0" + zlib.compress(bytes(megabytes * 2**20), 9)


def bombs() -> dict[str, bytes]:
    """Small files that ask for a lot."""
    text = ztxt(80)
    profile = b"icc\0\0" + zlib.compress(bytes(80 * 2**20), 9)
    gif = bytearray(pictures.encoded(drawn("P"), "GIF"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    tiff = pictures.encoded(drawn("RGB"), "TIFF")
    wide, high = struct.pack("<HHII", 256, 4, 1, 20), struct.pack("<HHII", 257, 4, 1, 12)
    assert wide in tiff and high in tiff
    tiff = tiff.replace(wide, struct.pack("<HHII", 256, 4, 1, 2**31 - 1))
    return {
        "pixels": png(40000, 40000, 8, 2, b"\0"),
        "rows": png(2**31 - 1, 2**31 - 1, 1, 0, b"\0"),
        "text": png(8, 8, 8, 2, b"\0" * 25 * 8, (b"zTXt", text)),
        "international": png(8, 8, 8, 2, b"\0" * 25 * 8, (b"iTXt", b"Comment\0\1\0\0\0" + ztxt(300)[9:])),
        "texts": png(8, 8, 8, 2, b"\0" * 25 * 8, *[(b"zTXt", ztxt(40))] * 8),
        "profile": png(8, 8, 8, 2, b"\0" * 25 * 8, (b"iCCP", profile)),
        "gif": bytes(gif),
        "tiff": tiff.replace(high, struct.pack("<HHII", 257, 4, 1, 2**31 - 1)),
    }


CHILD = """
import pathlib, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) * 2**20,) * 2)
from orchard.errors import UserError
from orchard.images.images import decode
for name in sys.argv[2:]:
    path = pathlib.Path(name)
    try:
        print(path.name, decode(path.read_bytes(), "file").size)
    except UserError as error:
        print(path.name, error)
"""


def child(folder: Path, files: Mapping[str, bytes], megabytes: int) -> dict[str, str]:
    """What reading each file ends in, in a process of so much memory."""
    pictures.write(folder, files)
    words = (sys.executable, "-c", CHILD, str(megabytes), *(str(folder / name) for name in files))
    done = subprocess.run(words, cwd=ROOT, capture_output=True, timeout=120, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.decode().splitlines())


def test_bombs_are_refused_in_little_memory(tmp_path):
    found = child(tmp_path, bombs(), 1500)
    assert found.keys() == bombs().keys()
    for name, line in found.items():
        assert line.startswith("file: not a whole image"), name


def test_the_deepest_image_that_is_let_in_fits_into_memory(tmp_path):
    data = png(12000, 12000, 16, 0, bytes((2 * 12000 + 1) * 12000))
    assert len(data) < 2**20
    assert child(tmp_path, {"deep": data}, 4000) == {"deep": "(12000, 12000)"}


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "tEXt"])
def test_a_long_text_in_a_png_does_not_make_its_pixels_unreadable(kind):
    """As in pictures that carry the workflow they were made by."""
    body = {
        "zTXt": ztxt(2),
        "iTXt": b"workflow\0\1\0\0\0" + ztxt(2)[9:],
        "tEXt": b"workflow\0" + b"x" * 2 * 2**20,
    }[kind]
    pixels = np.asarray(pictures.noise(3, (4, 4)))
    data = b"".join(b"\0" + row.tobytes() for row in pixels)
    assert np.array_equal(np.asarray(decode(png(4, 4, 8, 2, data, (kind.encode(), body)), "x.png")), pixels)


def test_a_file_of_any_size_is_refused_before_it_is_read(tmp_path, refused):
    pictures.write(tmp_path, ["apple/0.png", "apple/1.png"])
    with (tmp_path / "apple" / "1.png").open("r+b") as file:
        file.truncate(size_limits.IMAGE_FILE + 1)
    with refused("apple/1.png", "larger than"):
        folders.read(tmp_path)


def test_grey_of_sixteen_bits_is_rounded_as_numbers_are():
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    buffer = io.BytesIO()
    Image.fromarray(deep).save(buffer, "PNG")
    found = np.asarray(decode(buffer.getvalue(), "x.png"))[:, :, 0]
    assert np.array_equal(found, np.rint(deep.astype(np.float64) * 255 / 65535).astype(np.uint8))


def tiff(bits: int, photometric: int, data: bytes, *, deflate: bool, big_endian: bool = False) -> bytes:
    """A grey TIFF of four pixels in a row; by photometric 0 the number 0 is white, by 1 it is black."""
    order = ">" if big_endian else "<"
    data = zlib.compress(data) if deflate else data
    fields = {256: 4, 257: 1, 258: bits, 259: 8 if deflate else 1, 262: photometric}
    fields |= {273: 8 + 2 + 9 * 12 + 4, 277: 1, 278: 1, 279: len(data)}
    table = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in fields.items())
    head = (b"MM\0*" if big_endian else b"II*\0") + struct.pack(f"{order}IH", 8, len(fields))
    return head + table + bytes(4) + data


GREYS = {
    1: (bytes([0b01000000]), [0, 255, 0, 0]),
    2: (bytes([0b00110110]), [0, 255, 85, 170]),
    4: (bytes([0x0F, 0x1C]), [0, 255, 17, 204]),
    8: (bytes([0, 255, 10, 200]), [0, 255, 10, 200]),
    16: (struct.pack("<4H", 0, 65535, 10 * 257, 200 * 257), [0, 255, 10, 200]),
}
"""Bits a pixel -> four of them, and what they are of 255."""


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("bits", GREYS)
def test_a_tiff_whose_zero_is_white_is_no_negative(bits, deflate):
    data, greys = GREYS[bits]
    for photometric in (0, 1):
        found = np.asarray(decode(tiff(bits, photometric, data, deflate=deflate), "x.tif"))[0, :, 0]
        assert found.tolist() == (greys if photometric else [255 - grey for grey in greys])


def test_greys_of_twelve_bits_are_not_nearly_black():
    packed = bytes([0x00, 0x0F, 0xFF, 0x80, 0x01, 0x00])  # 0, 4095, 2048 and 256
    found = np.asarray(decode(tiff(12, 1, packed, deflate=False), "x.tif"))[0, :, 0]
    assert found.tolist() == [0, 255, 128, 16]


def test_a_kind_of_tiff_that_is_not_read_is_refused(refused):
    data, _ = GREYS[16]
    with refused("x.tif: not a whole image"):
        decode(tiff(16, 0, data, deflate=False, big_endian=True), "x.tif")
