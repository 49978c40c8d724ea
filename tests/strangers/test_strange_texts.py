"""Recipes, metadata files, captions and annotations that anybody may have written."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pictures
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mutations import ODD, changed, damaged, fuzz, works_or_refuses

from finetune.config import TrainLora
from generate.config import Generate
from orchard.cli import cli
from orchard.datasets import folders
from orchard.files import size_limits
from orchard.images import boxes

RECIPE = {
    "base": "mini",
    "count": 3,
    "guidance": 2.5,
    "screens": ["flat"],
    "private": False,
    "prompt": ["a {{ light }} {label}"],
    "vary": {"light": ["dim", "bright"]},
    "seed": 4,
}


def parsed(path: Path) -> None:
    """The recipe through the parser and the checks of both commands that take the most options."""
    for kind in (Generate, TrainLora):
        works_or_refuses(lambda kind=kind: cli.parse(kind, ["--config", str(path)], "prog").require_valid())


@fuzz(60)
@given(data=damaged(yaml.safe_dump(RECIPE).encode()))
def test_a_damaged_recipe_is_read_or_refused(tmp_path, data):
    (tmp_path / "r.yaml").write_bytes(data)
    parsed(tmp_path / "r.yaml")


@fuzz(60)
@given(recipe=changed(RECIPE))
def test_a_recipe_with_a_strange_value_is_read_or_refused(tmp_path, recipe):
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    parsed(tmp_path / "r.yaml")


def laughs(levels: int = 30) -> str:
    """Each line twice the one before."""
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, levels))]
    return "\n".join(lines)


def merges(levels: int = 30) -> str:
    """The same with merged mappings."""
    lines = ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, levels))]
    return "\n".join(lines)


HOSTILE = {
    "laughs": (laughs(), "refers to another value"),
    "merges": (merges(), "refers to another value"),
    "itself": ("classes: &a [*a]", "refers to another value"),
    "object": ("data: !!python/object/apply:os.system ['touch hacked']", "not YAML"),
    "name": ("data: !!python/name:os.system", "not YAML"),
    "date": ("seed: 2001-99-99", "not YAML"),
    "integer": ("seed: !!int x", "not YAML"),
    "hexadecimal": ("seed: 0x" + "f" * 5000, "too large"),
    "decimal": ("seed: " + "9" * 5000, "not YAML"),
    "float": ("guidance: .nan", "--guidance"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "binary": ("data: !!binary AAAA", "nested"),
    "set": ("classes: !!set {a, b}", "no order"),
    "pairs": ("classes: !!omap [a: 1]", "nested"),
    "nul": ('data: "a\\0b"', "NUL"),
    "half": ('data: "\\ud800"', "surrogate"),
    "key": ("? [a]\n: b", "not YAML"),
    "latin": (b"data: caf\xe9", "not YAML"),
    "long": ("#" * (size_limits.RECIPE + 1), "larger than"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_recipe_is_refused_at_once(tmp_path, monkeypatch, refused, name):
    text, words = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    started = time.monotonic()
    with refused(words):
        cli.parse(Generate, ["--config", "r.yaml"], "prog").require_valid()
    assert time.monotonic() - started < 10
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


@dataclass(frozen=True, kw_only=True)
class Texts(cli.Options):
    """Options that take any text."""

    words: tuple[str, ...] = ()
    """Any."""


@dataclass(frozen=True, kw_only=True)
class Words(Texts, cli.Common):
    """A command."""


def test_texts_of_a_recipe_come_through_as_they_are(tmp_path):
    words = ["a\nb", "x=y", "é", "\U0001f34e", "#", "{}", "", " ", "null", "%s", "[/x]"]
    text = json.dumps({"data": "--seed 3", "words": words}, ensure_ascii=False)
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    config = cli.parse(Words, ["--config", str(tmp_path / "r.yaml")], "prog")
    assert config == Words(data="--seed 3", words=tuple(words), config=config.config)


CSV = b'file_name,text,label\na.png,"red, ripe",apple\nb.png,green,pear\n'
ROWS = [{"file_name": "a.png", "text": "red", "label": "apple"}, {"file_name": "b.png", "label": 7}]
XML = b"""<?xml version="1.0" encoding="utf-8"?><annotation><filename>a.png</filename>
<size><width>8</width><height>8</height></size><object><name>apple</name><bndbox><xmin>1</xmin><ymin>1</ymin>
<xmax>4</xmax><ymax>8</ymax></bndbox></object></annotation>"""
YOLO = b"0 0.5 0.5 0.25 0.5\n3 .1 .2 0.05 1e-1\n"
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
    "annotations": [{"image_id": 1, "bbox": [1, 2, 3.5, 4]}, {"image_id": 1, "caption": "red"}],
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return pictures.write(tmp_path_factory.mktemp("photos"), ["a.png", "b.png"])


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    return pictures.write(tmp_path_factory.mktemp("labelled"), ["apple/a.png"])


def listed(root: Path, name: str, data: bytes):
    """The set with this file beside its images."""
    (root / name).write_bytes(data)
    try:
        return works_or_refuses(lambda: folders.read(root))
    finally:
        (root / name).unlink()


@fuzz(150)
@given(data=damaged(CSV))
def test_a_damaged_table_of_captions_is_read_or_refused(photos, data):
    listed(photos, "metadata.csv", data)


@fuzz(150)
@given(rows=changed(ROWS), odd=st.sampled_from(ODD))
def test_strange_lines_of_captions_are_read_or_refused(photos, rows, odd):
    rows = rows if isinstance(rows, list) else [rows, odd]
    lines = "\n".join(json.dumps(row) for row in rows)
    listed(photos, "metadata.jsonl", lines.encode("utf-8", "surrogatepass"))


@fuzz(60)
@given(data=st.one_of(st.binary(max_size=40), damaged(b"a red apple")))
def test_a_strange_caption_is_read_or_refused(photos, data):
    (photos / "metadata.csv").write_bytes(CSV.replace(b'"red, ripe"', b""))
    try:
        listed(photos, "a.txt", data)
    finally:
        (photos / "metadata.csv").unlink()


METADATA = {
    "another value twice": ("metadata.csv", CSV + b"a.png,blue,apple\n", "is listed twice"),
    "a list as label": ("metadata.jsonl", b'{"file_name": "a.png", "label": ["x"]}', "label of a.png"),
    "yes as label": ("metadata.jsonl", b'{"file_name": "a.png", "label": true}', "label of a.png"),
    "a number as name": ("metadata.jsonl", b'{"file_name": 5}', "no file_name"),
    "no number": ("metadata.jsonl", b'{"file_name": "a.png", "x": NaN}', "no number"),
    "nul": ("metadata.csv", CSV + b"c\0.png,x,apple\n", "NUL"),
    "half a character": ("metadata.jsonl", b'{"file_name": "a.png", "label": "\\ud800"}', "surrogate"),
    "no end of brackets": ("metadata.jsonl", b"[" * 200_000, "nested too deeply"),
    "a long field": ("metadata.csv", b"file_name,text\na.png," + b"x" * 200_000, "field"),
    "out of its folder": ("metadata.jsonl", b'{"file_name": "../../etc/x.png"}', "leads out"),
}


@pytest.mark.parametrize("name", METADATA)
def test_captions_that_make_no_sense_are_refused(tmp_path, refused, name):
    file, data, words = METADATA[name]
    pictures.write(tmp_path, {"a.png": None, "b.png": None, file: data})
    with refused(file, words):
        folders.read(tmp_path)


def test_a_row_twice_with_the_same_values_is_one_row(tmp_path):
    pictures.write(
        tmp_path, {"a.png": None, "b.png": None, "metadata.csv": CSV + CSV.splitlines()[1] + b"\n"}
    )
    assert folders.read(tmp_path).counts() == {"apple": 1, "pear": 1}


def boxed(root: Path, name: str, data: bytes):
    """The boxes of the photo with this file beside it."""
    found = listed(root, name, data)
    (root / name).write_bytes(data)
    try:
        return works_or_refuses(lambda: [photo.boxes() for photo in found.photos]) if found else None
    finally:
        (root / name).unlink()


@fuzz(200)
@given(data=st.one_of(damaged(XML), st.binary(max_size=60)))
def test_damaged_voc_boxes_are_read_or_refused(labelled, data):
    boxed(labelled, "apple/a.xml", data)


@fuzz(200)
@given(data=st.one_of(damaged(YOLO), st.binary(max_size=60)))
def test_damaged_yolo_boxes_are_read_or_refused(labelled, data):
    boxed(labelled, "apple/a.txt", data)


@fuzz(200)
@given(value=changed(COCO))
def test_strange_coco_boxes_are_read_or_refused(labelled, value):
    boxed(labelled, "boxes.json", json.dumps(value).encode("utf-8", "surrogatepass"))


def doctype(body: str) -> bytes:
    return f"<!DOCTYPE annotation [{body}]><annotation><object>&e;</object></annotation>".encode()


def twice(inner: str, outer: str) -> str:
    """The declaration of an entity that is another one twice."""
    return f'<!ENTITY {outer} "&{inner};&{inner};">'


ANNOTATIONS = {
    "no box": (b"<annotation><object/></annotation>", "xmin of object 1 is None, not a number"),
    "part of a box": (XML.replace(b"<ymax>8</ymax>", b""), "ymax of object 1"),
    "words": (XML.replace(b"<xmax>4", b"<xmax>four"), "xmax of object 1 is 'four', not a number"),
    "no number": (XML.replace(b"<xmax>4", b"<xmax>nan"), "xmax of object 1 is 'nan', not a number"),
    "entity": (doctype('<!ENTITY e "x">'), "declares a document type"),
    "external entity": (doctype('<!ENTITY e SYSTEM "file:///etc/passwd">'), "declares a document type"),
    "parameter entity": (
        doctype('<!ENTITY % e SYSTEM "http://127.0.0.1:9/x"> %e;'),
        "declares a document type",
    ),
    "laughs": (
        doctype('<!ENTITY a "xx">' + "".join(map(twice, "abcd", "bcde"))),
        "declares a document type",
    ),
    "unknown encoding": (b'<?xml version="1.0" encoding="nonsense"?><annotation/>', "unknown encoding"),
    "many bytes a letter": (b'<?xml version="1.0" encoding="shift_jis"?><annotation/>', "encoding"),
    "no end of nesting": (b"<a>" * 10**6, "no element found"),
    "too large": (b"<annotation>" + b" " * size_limits.ANNOTATION, "larger than"),
}


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_annotations_that_make_no_sense_are_refused_by_name(tmp_path, refused, name):
    data, words = ANNOTATIONS[name]
    (tmp_path / "a.xml").write_bytes(data)
    with refused("a.xml: no boxes can be read", words):
        boxes.voc(tmp_path / "a.xml")


def test_parts_of_an_object_are_no_objects(tmp_path):
    inner = b"<part><object/><bndbox><xmin>7</xmin></bndbox></part>"
    (tmp_path / "a.xml").write_bytes(XML.replace(b"</bndbox>", b"</bndbox>" + inner))
    assert boxes.voc(tmp_path / "a.xml").boxes == ((0, 0, 4, 8),)
