"""Captions and labels beside images: what other tools write is read, and what is not read is named."""

import json

import pytest
from pictures import write

from orchard.datasets import folders

NAMES = ("apple/a.png", "pear/b.png")


def texts(root) -> dict[str, str | None]:
    return {photo.path: photo.text for photo in folders.read(root).photos}


@pytest.fixture
def photos(tmp_path):
    return write(tmp_path, NAMES)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "apple/a.png,one apple, on a table",
            ("line 2 (apple/a.png) has 3 values", "first line 2", "quotes"),
        ),
        ("apple/a.png", ("line 2 (apple/a.png) has 1 values",)),
        ("pear/b.png,green\napple/a.png,red,ripe,round", ("line 3 (apple/a.png) has 4 values",)),
        ('"apple/a.png","a\nb"\npear/b.png', ("line 4 (pear/b.png)",)),
        ('apple/a.png,"one apple\npear/b.png,green', ("cannot be read (unexpected end of data)",)),
    ],
)
def test_a_row_of_another_width_is_refused_by_its_line(photos, refused, line, words):
    (photos / "metadata.csv").write_text(f"file_name,text\n{line}\n")
    with refused(str(photos / "metadata.csv"), *words):
        folders.read(photos)


def test_a_quoted_comma_is_part_of_the_caption(photos):
    rows = ('apple/a.png,"one apple, on a wooden table"', "", 'pear/b.png, "green, ""ripe"""', "")
    lines = "\r\n".join(("file_name, text", *rows))
    (photos / "metadata.csv").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    assert texts(photos) == {"apple/a.png": "one apple, on a wooden table", "pear/b.png": 'green, "ripe"'}


def test_a_column_twice_is_refused(photos, refused):
    (photos / "metadata.csv").write_text("file_name,text,text\napple/a.png,red,green\n")
    with refused("two columns are called text"):
        folders.read(photos)


@pytest.mark.parametrize("form", ["csv", "jsonl", "CSV"])
@pytest.mark.parametrize("column", ["text", "caption", "prompt"])
def test_captions_are_read_from_columns_of_the_usual_names(photos, column, form):
    rows = [{"file_name": name, column: f"{name} it is"} for name in NAMES]
    lines = [f"file_name,{column}", *(f"{name},{name} it is" for name in NAMES)]
    content = "\n".join(map(json.dumps, rows)) if form == "jsonl" else "\n".join(lines)
    (photos / f"metadata.{form}").write_text(content)
    assert texts(photos) == {name: f"{name} it is" for name in NAMES}
    assert folders.read(photos).notes == ()


@pytest.mark.parametrize("column", ["label", "labels", "class"])
def test_labels_are_read_from_columns_of_the_usual_names(tmp_path, column):
    write(tmp_path, ["a.png", "b.png"])
    (tmp_path / "metadata.csv").write_text(f"file_name,{column}\na.png,01\nb.png,1\n")
    assert {p.path: p.label for p in folders.read(tmp_path).photos} == {"a.png": "01", "b.png": "1"}


def test_columns_that_are_not_read_are_named(photos):
    (photos / "metadata.csv").write_text(
        "file_name,text,caption,licence\napple/a.png,red,ripe,free\npear/b.png,green,hard,free\n"
    )
    found = folders.read(photos)
    assert [photo.text for photo in found.photos] == ["red", "green"]
    assert found.notes == ("metadata.csv: columns that are not read: caption, licence",)


def test_two_columns_that_might_be_meant_are_refused(photos, refused):
    (photos / "metadata.csv").write_text("file_name,caption,prompt\napple/a.png,red,ripe\n")
    with refused("columns caption and prompt", "call the one to use 'text'"):
        folders.read(photos)


@pytest.mark.parametrize("name", ["a.txt", "a.TXT", "a.caption", "a.Caption", "a.png.txt"])
def test_captions_are_read_from_files_of_the_usual_names(photos, name):
    (photos / "apple" / name).write_text("one apple\n")
    found = folders.read(photos)
    assert [photo.text for photo in found.photos] == ["one apple", None]
    assert found.notes == ()


def test_files_that_might_hold_captions_and_are_not_read_are_named(photos):
    files = ("captions.csv", "apple/labels.json", "data.jsonl", "pear/metadata.tsv", "pear/c.caption")
    write(photos, dict.fromkeys(files, b"x"))
    (note,) = folders.read(photos).notes
    assert note.startswith("ignored 5 other files: ")
    assert all(name in note for name in files)


def test_two_files_with_captions_of_one_image_agree_or_are_refused(photos, refused):
    (photos / "apple" / "a.txt").write_text("one apple")
    (photos / "apple" / "a.caption").write_text("one apple\n")
    assert texts(photos)["apple/a.png"] == "one apple"
    (photos / "apple" / "a.caption").write_text("two apples")
    with refused("a.txt: says 'one apple', another file 'two apples'"):
        folders.read(photos)


def test_a_line_that_is_no_json_is_refused_by_its_number(photos, refused):
    (photos / "metadata.jsonl").write_text('{"file_name": "apple/a.png", "text": "red"}\n\n{"file_name"\n')
    with refused("metadata.jsonl", "line 3"):
        folders.read(photos)


def test_a_row_twice_with_another_caption_is_refused_whatever_the_column_is_called(photos, refused):
    (photos / "metadata.csv").write_text("file_name,caption\napple/a.png,red\npear/b.png,green\n")
    line = {"file_name": "apple/a.png", "text": "red", "licence": "free"}
    (photos / "metadata.jsonl").write_text(json.dumps(line))
    assert texts(photos) == {"apple/a.png": "red", "pear/b.png": "green"}
    (photos / "metadata.jsonl").write_text(json.dumps(line | {"text": "ripe"}))
    with refused("apple/a.png is listed twice, with other values"):
        folders.read(photos)
