"""Content Credentials of a signed set: what they say, what breaks them, and which files are refused."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image
from stub_sampler import flat_at, noise, rows

from generate.outputs import credentials
from generate.outputs.metadata import COMPOSITE_TYPE, SOURCE_TYPE, png
from orchard import shards
from orchard.bases import bases

c2pa = pytest.importorskip("c2pa")
import certificates  # noqa: E402 - what it needs comes with c2pa

HOLDER = "O=Orchard tests,CN=Mira"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return certificates.write(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def sign(files) -> tuple[Path, Path]:
    return files.chain, files.key


def state(data: bytes, authority: Path) -> str:
    """What a reader says that trusts the authority."""
    trusting = c2pa.Settings.from_dict({"trust": {"trust_anchors": authority.read_text()}})
    with c2pa.Reader("image/png", io.BytesIO(data), context=c2pa.Context(trusting)) as reader:
        return reader.get_validation_state()


def action(data: bytes) -> dict:
    with c2pa.Reader("image/png", io.BytesIO(data)) as reader:
        (assertion,) = json.loads(reader.json())["manifests"][reader.get_active_manifest()["label"]][
            "assertions"
        ]
    (found,) = assertion["data"]["actions"]
    return found


def pixels(row: dict) -> bytes:
    return Image.open(io.BytesIO(row["image"]["bytes"])).tobytes()


def pictures(folder: Path) -> list[bytes]:
    """Every image that the set has, its sheets among them."""
    stored = [row["image"]["bytes"] for split in ("train", "rejected") for row in rows(folder, split)]
    return [*stored, *(path.read_bytes() for path in folder.rglob("*.png"))]


def test_every_image_says_who_signed_it_and_how_it_was_made(tmp_path, generate, base, files, sign):
    generate(tmp_path / "s", flat_at(3), count=6, sign=sign)
    found = pictures(tmp_path / "s")
    assert len(found) == 6 + 1 + 2 and {state(data, files.authority) for data in found} == {"Trusted"}
    row = rows(tmp_path / "s")[0]
    said = action(row["image"]["bytes"])
    assert (said["action"], said["digitalSourceType"]) == ("c2pa.created", SOURCE_TYPE)
    assert said["parameters"] == {
        "orchard.prompt": row["prompt"],
        "orchard.seed": str(row["seed"]),
        "orchard.base": f"{base.name}@{bases.resolve(str(base)).digest[:12]}",
    }
    assert b"XML:com.adobe.xmp" in row["image"]["bytes"]
    assert f"signed: apple by {HOLDER}" in (tmp_path / "s" / "README.md").read_text()


def test_the_hash_of_the_adapter_and_a_photograph_beneath_are_told(sign):
    data = png(
        Image.new("RGB", (8, 8)),
        prompt="a photo of apple",
        system="mini",
        adapters="ab" * 32,
        source=COMPOSITE_TYPE,
        signer=credentials.signer(sign),
    )
    assert action(data)["parameters"]["orchard.adapters"] == "ab" * 32
    assert action(data)["digitalSourceType"] == COMPOSITE_TYPE


def test_a_flipped_byte_of_pixels_or_metadata_breaks_the_seal(tmp_path, generate, sign):
    generate(tmp_path / "s", noise, count=1, sign=sign)
    data = rows(tmp_path / "s")[0]["image"]["bytes"]
    assert credentials.faults(data) == []
    for place in (data.index(b"IDAT") + 40, data.index(b"AIPromptInformation") + 25):
        altered = bytearray(data)
        altered[place] ^= 1
        assert credentials.faults(bytes(altered)) == ["assertion.dataHash.mismatch"]


def test_signing_changes_no_pixel_and_what_is_there_stays_as_it_was(tmp_path, generate, sign):
    generate(tmp_path / "plain", noise, count=6)
    generate(tmp_path / "s", noise, count=4, sign=sign)
    before = rows(tmp_path / "s")
    generate(tmp_path / "s", noise, count=6, sign=sign)
    after = rows(tmp_path / "s")
    assert [row["image"] for row in after[:4]] == [row["image"] for row in before]
    assert [pixels(row) for row in after] == [pixels(row) for row in rows(tmp_path / "plain")]


def test_a_set_is_gone_on_with_by_its_own_signer_alone(tmp_path, generate, sign, refused):
    other = certificates.write(tmp_path / "other", "Jane")
    renewed = certificates.write(tmp_path / "renewed")
    generate(tmp_path / "s", noise, count=2, sign=sign)
    for given, asked in (((), "nobody"), ((other.chain, other.key), "O=Orchard tests,CN=Jane")):
        with refused(f"signed_by {HOLDER} (requested: {asked})"):
            generate(tmp_path / "s", noise, count=4, sign=given)
        with refused(f"--rescreen: apple is signed by {HOLDER}"):
            rescreen(generate, tmp_path / "s", given)
    generate(tmp_path / "s", noise, count=4, sign=(renewed.chain, renewed.key))
    generate(tmp_path / "plain", noise, count=2)
    with refused(f"signed_by nobody (requested: {HOLDER})"):
        generate(tmp_path / "plain", noise, count=4, sign=sign)


def rescreen(generate, folder: Path, sign: tuple[Path, ...]) -> None:
    """As ``--rescreen`` alone: nothing that is about sampling is given."""
    usual = {"base": "", "batch_size": 16, "shard_size": 256, "precision": "auto", "count": 0}
    generate(folder, noise, rescreen=True, sign=sign, **usual)


def test_images_that_are_judged_anew_stay_signed(tmp_path, generate, files, sign):
    generate(tmp_path / "s", flat_at(3), count=6, sign=sign)
    shutil.rmtree(tmp_path / "s" / "sheets")
    rescreen(generate, tmp_path / "s", sign)
    assert {state(data, files.authority) for data in pictures(tmp_path / "s")} == {"Trusted"}


def test_nothing_of_the_private_key_is_written(tmp_path, generate, files, sign):
    generate(tmp_path / "s", noise, count=2, sign=sign)
    lines = files.key.read_bytes().splitlines()[1:-1]
    for path in filter(Path.is_file, (tmp_path / "s").rglob("*")):
        content = path.read_bytes()
        assert not any(line in content for line in lines)
        assert str(files.key).encode() not in content and files.key.name.encode() not in content


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda one, other: (one.key, one.chain), ("key.pem: no certificates in PEM", "CERT, then KEY")),
        (lambda one, other: (one.chain, one.chain), ("chain.pem: no private key in PEM",)),
        (lambda one, other: (one.chain, other.key), ("is not the key of the first certificate in",)),
        (lambda one, other: (one.chain.with_name("no"), one.key), ("no: cannot be read",)),
        (lambda one, other: (one.chain,), ("give two files, CERT KEY",)),
    ],
)
def test_files_that_are_given_wrongly_are_refused_before_sampling(
    tmp_path, generate, files, refused, make, words
):
    other = certificates.write(tmp_path / "other")
    with refused("--sign", *words):
        generate(tmp_path / "s", noise, sign=make(files, other))
    assert not (tmp_path / "s").exists()


def test_certificates_that_readers_would_not_accept_are_refused(tmp_path, refused):
    expired = certificates.write(tmp_path / "expired", expired=True)
    with refused("chain.pem: expired on"):
        credentials.signer((expired.chain, expired.key))
    server = certificates.write(tmp_path / "server", use=certificates.ExtendedKeyUsageOID.SERVER_AUTH)
    with refused("C2PA does not take it", "a certificate for signing"):
        credentials.signer((server.chain, server.key))


def test_the_missing_package_is_named(tmp_path, monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with refused("needs the package c2pa-python", "pip install -e '.[sign]'"):
        credentials.signer((tmp_path / "a", tmp_path / "b"))


def test_signed_shards_keep_the_header_readable(tmp_path, generate, sign):
    generate(tmp_path / "s", noise, count=2, sign=sign)
    assert shards.read_manifest(tmp_path / "s")["arguments"]["apple"]["signed_by"] == HOLDER
    assert shards.read(tmp_path / "s").counts() == {"apple": 2, "pear": 0}
