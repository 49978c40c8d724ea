"""ICC profiles for tests, put together from published numbers (ICC.1:2010) without the toolkit."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
D65 = (0.3127, 0.3290)
P3_PRIMARIES = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
"""SMPTE EG 432-1."""
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
P3_GREEN, SRGB_GREEN = (60, 180, 70), (0, 183, 49)
"""A colour of Display P3, and the nearest that sRGB has."""


def display_p3(size: int = 0) -> bytes:
    """Apple's RGB of screens and phones: the primaries of P3, the white and the curve of sRGB.

    ``size`` is that of a table besides, which nothing reads.
    """
    columns = np.stack([_xyz_of(place) for place in P3_PRIMARIES], axis=1)
    white = _xyz_of(D65)
    cones = np.diag((BRADFORD @ D50) / (BRADFORD @ white))
    matrix = np.linalg.inv(BRADFORD) @ cones @ BRADFORD @ columns * np.linalg.solve(columns, white)
    curve = b"para" + struct.pack(">IHH", 0, 3, 0) + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    places = zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True)
    return _profile(
        b"RGB ",
        b"XYZ ",
        {name: _xyz(column) for name, column in places}
        | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
        | {b"wtpt": _xyz(D50), b"priv": b"data" + bytes(4 + size)},
    )


def grey(gamma: float) -> bytes:
    """Greys of one gamma; 1 is linear light."""
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256))
    return _profile(b"GRAY", b"XYZ ", {b"wtpt": _xyz(D50), b"kTRC": curve.ljust(16, b"\0")})


def cmyk(inks: Mapping[tuple[int, int, int, int], int], other: int = 255) -> bytes:
    """Greys by ink: corners such as (1, 0, 0, 0), cyan alone, -> L* of 0 to 255; ``other`` elsewhere."""
    corners = [tuple(int(bit) for bit in f"{place:04b}") for place in range(16)]
    lightness = b"".join(bytes((inks.get(corner, other), 128, 128)) for corner in corners)
    straight = bytes(range(256))
    unit = _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table = b"mft1" + struct.pack(">IBBBB", 0, 4, 3, 2, 0) + unit + straight * 4 + lightness + straight * 3
    return _profile(b"CMYK", b"Lab ", {b"wtpt": _xyz(D50), b"A2B0": table}, kind=b"prtr", version=0x02100000)


def _xyz_of(place: Sequence[float]) -> np.ndarray:
    x, y = place
    return np.array([x / y, 1, (1 - x - y) / y])


def _fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def _xyz(numbers: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*numbers)


def _profile(
    space: bytes,
    connection: bytes,
    tags: Mapping[bytes, bytes],
    kind: bytes = b"mntr",
    version: int = 0x04000000,
) -> bytes:
    """A header of 128 bytes, the table of tags, and the tags."""
    start = 132 + 12 * len(tags)
    table, body = b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = struct.pack(">I4sI", start + len(body), b"test", version)
    head = size + kind + space + connection + bytes(12) + b"acsp" + bytes(28) + _fixed(*D50) + bytes(48)
    assert len(head) == 128, len(head)
    return head + struct.pack(">I", len(tags)) + table + body
