"""Folders behind a URL, against a local stand-in of S3."""

import os

import pipelines
import pytest
import stub_sampler
from PIL import Image
from stub_sampler import CLASSES, noise, rows

from orchard import shards
from orchard.files import storage

BUCKET = f"sets-{os.getpid()}"
"""Of this process alone: the lock of a URL holds for the whole machine."""


@pytest.fixture(scope="module")
def bucket():
    """An S3 server with one bucket, and an environment in which the usual client finds it."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "stand-in")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket=BUCKET)
        yield client
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def generate(monkeypatch, tmp_path):
    base = pipelines.tiny(tmp_path / "base")
    photos = stub_sampler.photos(tmp_path / "photos")

    def run(output, **options):
        def draw(row):
            return Image.new("RGB", (32, 32)) if row.index == 3 else noise(row)

        return stub_sampler.generate(monkeypatch, base, output, draw, data=str(photos), **options)

    return run


def test_a_set_behind_a_url_is_written_grown_refilled_and_read(bucket, generate, tmp_path):
    url = f"s3://{BUCKET}/fruit/set"
    generate(url, classes=CLASSES)
    generate(tmp_path / "s", classes=CLASSES)
    folder = storage.location(url)
    assert rows(folder) == rows(tmp_path / "s")
    assert rows(folder, "rejected") == rows(tmp_path / "s", "rejected")
    local = {str(path.relative_to(tmp_path / "s")) for path in (tmp_path / "s").rglob("*") if path.is_file()}
    listed = bucket.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert {thing["Key"].removeprefix("fruit/set/") for thing in listed} == local
    assert shards.read(folder).counts() == {"apple": 10, "pear": 10}
    bucket.delete_object(Bucket=BUCKET, Key="fruit/set/data/train-pear-00001.parquet")
    generate(url, classes=CLASSES, count=12)
    generate(tmp_path / "s", classes=CLASSES, count=12)
    assert rows(folder) == rows(tmp_path / "s")
    assert generate(url, classes=CLASSES, count=12) == 0


def test_an_object_that_was_replaced_is_refused_until_it_is_made_anew(bucket, generate, tmp_path, refused):
    url, key = f"s3://{BUCKET}/altered", "altered/data/train-apple-00000.parquet"
    generate(url)
    whole = bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    bucket.put_object(Bucket=BUCKET, Key=key, Body=whole.replace(b"IDAT", b"IDAX", 1))
    for read in (lambda: shards.read(storage.location(url)), lambda: generate(url, verify=True)):
        with refused(key, "delete it and run generate again"):
            read()
    bucket.delete_object(Bucket=BUCKET, Key=key)
    assert generate(url) == 7
    assert bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read() == whole
    assert shards.read(storage.location(url)).counts()["apple"] == 10


def test_the_experiment_reads_a_set_behind_a_url(bucket, generate, tmp_path):
    from evaluate.config import Evaluate
    from evaluate.experiment.image_sets import load
    from evaluate.experiment.mixtures import parse

    generate(f"s3://{BUCKET}/other", classes=CLASSES)
    config = Evaluate(data=str(tmp_path / "photos"), synthetic=f"s3://{BUCKET}/other")
    assert load(config, parse(("0.5",))).synthetic.counts() == {"apple": 10, "pear": 10}


def test_a_place_that_cannot_be_written_is_refused_in_one_line(bucket, generate, refused):
    with refused("s3://nowhere/set", "cannot be reached", "bucket does not exist"):
        generate("s3://nowhere/set")
    with refused("abc://x: no folder can be reached that way"):
        generate("abc://x")


def test_uploads_take_a_local_folder(generate, refused):
    with refused("--push_to_hub", "s3://sets/x"):
        generate("s3://sets/x", push_to_hub="x")
