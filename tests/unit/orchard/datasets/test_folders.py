import json
import os

import pytest
from pictures import encoded, noise, write

from orchard.datasets import folders, sources
from orchard.datasets.folders import describe, read
from orchard.images.images import TEST, TRAIN


def labels(images) -> dict[str, str]:
    return {photo.path: photo.label for photo in images.photos}


def test_leftovers_that_may_hide_images_are_named_once_and_those_of_a_desktop_never(tmp_path):
    write(tmp_path, ["apple/a.png", "pear/b.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/a2.png"])
    write(tmp_path, {"apple/.DS_Store": b"x", "pear/Thumbs.db": b"x"})
    images = read(tmp_path)
    assert images.classes == ("apple", "pear")
    assert labels(images) == {"apple/a.png": "apple", "pear/b.png": "pear"}
    (note,) = images.notes
    for name in (".ipynb_checkpoints", "__MACOSX"):
        assert note.count(name) == 1
    assert note.startswith("ignored 2 other files") and "Thumbs.db" not in note


def test_many_ignored_files_are_counted_not_listed(tmp_path):
    write(tmp_path, ["apple/a.png", *(f"apple/{i}.heic" for i in range(9))])
    assert read(tmp_path).notes == (
        "ignored 9 other files: " + ", ".join(f"apple/{i}.heic" for i in range(5)) + ", …",
    )


def test_upper_case_suffixes_count(tmp_path):
    write(tmp_path, ["apple/IMG_1.JPG", "apple/IMG_2.jpg", "apple/IMG_3.Jpeg"])
    assert read(tmp_path).counts() == {"apple": 3}


def test_captions_leave_the_folder_labels_alone(tmp_path):
    write(tmp_path, ["apple/a.png", "pear/a.png"])
    (tmp_path / "metadata.csv").write_text("file_name,text\napple/a.png,red\npear/a.png,green\n")
    images = read(tmp_path)
    assert labels(images) == {"apple/a.png": "apple", "pear/a.png": "pear"}
    assert {p.path: p.text for p in images.photos} == {"apple/a.png": "red", "pear/a.png": "green"}
    assert images.notes == ()


def test_image_without_a_caption_stays_and_is_named(tmp_path):
    write(tmp_path, ["apple/a.png", "pear/a.png"])
    (tmp_path / "metadata.csv").write_text("file_name,text\napple/a.png,red\n")
    images = read(tmp_path)
    assert images.counts() == {"apple": 1, "pear": 1}
    assert images.notes == (
        "metadata does not list 1 of 2 images (pear/a.png); they are kept, without a text",
    )


def test_caption_of_a_missing_image_is_noted(tmp_path):
    write(tmp_path, ["apple/a.png"])
    (tmp_path / "apple/metadata.csv").write_text("file_name,text\na.png,red\nb.png,green\n")
    assert read(tmp_path).notes == ("metadata lists 1 images that are not there (apple/b.png)",)


def test_a_text_file_beside_an_image_is_its_caption_and_the_folder_its_label(tmp_path):
    write(tmp_path, ["apple/a.PNG", "pear/b.png", "pear/c.png"])
    (tmp_path / "apple/a.txt").write_text("\ufeffa red\n apple ", encoding="utf-8")
    (tmp_path / "pear/b.txt").write_text(" \n")
    (tmp_path / "pear/notes.txt").write_text("not about an image")
    found = read(tmp_path)
    assert [(p.label, p.text) for p in found.photos] == [
        ("apple", "a red apple"),
        ("pear", None),
        ("pear", None),
    ]
    assert found.notes == ()


def test_two_captions_of_one_image_are_refused_when_they_differ(tmp_path, refused):
    write(tmp_path, ["apple/a.png", "pear/b.png"])
    (tmp_path / "metadata.csv").write_text("file_name,text\napple/a.png,red\npear/b.png,green\n")
    (tmp_path / "apple/a.txt").write_text("red")
    assert read(tmp_path).photos[0].text == "red"
    (tmp_path / "apple/a.txt").write_text("ripe")
    with refused("a.txt", "'ripe'", "'red'", "keep one"):
        read(tmp_path)


def test_a_caption_that_is_no_text_is_refused(tmp_path, refused):
    write(tmp_path, ["apple/a.png"])
    (tmp_path / "apple/a.txt").write_bytes(b"\xff\xfe\x00")
    with refused("a.txt", "cannot be read"):
        read(tmp_path)


def test_metadata_without_labels_says_which_columns_it_has(tmp_path, refused):
    write(tmp_path, ["a.png", "b.png"])
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,red\nb.png,green\n")
    with refused("a.png has no label", "no label column", "found file_name, text"):
        read(tmp_path)


def test_label_column_labels_loose_files(tmp_path, refused):
    write(tmp_path, ["img_1.png", "img_2.png"])
    rows = [{"file_name": "img_1.png", "label": "apple"}, {"file_name": "img_2.png", "label": 7}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert labels(read(tmp_path)) == {"img_1.png": "apple", "img_2.png": "7"}
    write(tmp_path, ["img_3.png"])
    with refused("img_3.png has no label"):
        read(tmp_path)


def test_label_column_may_not_contradict_the_folder(tmp_path, refused):
    write(tmp_path, ["apple/a.png"])
    (tmp_path / "metadata.csv").write_text("file_name,label\napple/a.png,pear\n")
    with refused("apple/a.png lies in apple, but its metadata says pear"):
        read(tmp_path)


def test_byte_order_mark_is_no_part_of_a_column_name(tmp_path):
    write(tmp_path, ["apple/a.png"])
    (tmp_path / "metadata.csv").write_text("file_name,text\napple/a.png,grün\n", encoding="utf-8-sig")
    assert [p.text for p in read(tmp_path).photos] == ["grün"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("metadata.csv", b"file_name,text\n../b.png,x\n", ("../b.png leads out of its folder",)),
        ("metadata.csv", b"file_name,text\n/etc/b.png,x\n", ("/etc/b.png leads out of its folder",)),
        ("metadata.csv", b"image,text\na.png,x\n", ("no file_name", "image a.png")),
        ("metadata.csv", b"file_name,text\n\xff\xfe,x\n", ("cannot be read",)),
        ("metadata.jsonl", b'["apple/a.png"]\n', ("not an object",)),
        ("metadata.jsonl", b'{"file_name": "apple/a.png"\n', ("cannot be read",)),
        ("metadata.jsonl", b'{"file_name": "apple/a.png", "text": ["x"]}\n', ("write a plain string",)),
    ],
)
def test_bad_metadata_is_one_line(tmp_path, refused, name, content, words):
    write(tmp_path, ["apple/a.png"])
    (tmp_path / name).write_bytes(content)
    with refused(str(tmp_path / name), *words):
        read(tmp_path)


def test_class_missing_from_the_test_folder_keeps_the_mapping(tmp_path):
    write(tmp_path, [f"train/{name}/1.png" for name in "xyz"] + [f"test/{name}/2.png" for name in "yz"])
    images = read(tmp_path)
    assert images.classes == ("x", "y", "z")
    assert images.of(TEST).labels().tolist() == [1, 2]
    assert images.of(TEST).counts() == {"x": 0, "y": 1, "z": 1}


def test_empty_class_folder_counts_as_a_class(tmp_path):
    write(tmp_path, ["apple/a.png", "pear/a.png"])
    (tmp_path / "plum").mkdir()
    assert read(tmp_path).counts() == {"apple": 1, "pear": 1, "plum": 0}


def test_folders_beside_the_splits_are_no_classes(tmp_path):
    write(tmp_path, ["train/apple/a.png", "test/apple/b.png"])
    write(tmp_path, {"docs/read.md": b"x"})
    assert read(tmp_path).classes == ("apple",)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["apple/a.png", "b.png"], ("b.png lies outside the class folders",)),
        (["train/apple/a.png", "extra/c.png"], ("extra/c.png lies beside the train and test folders",)),
        (["train/a.png", "car/b.png"], ("car/b.png", "train")),
        (["photo.png"], ("photo.png has no label", "CLASS_NUMBER.jpg")),
        (["0001.png"], ("0001.png has no label",)),
        (["mixed_1.png"], ("only 'mixed' ones",)),
        (["apple/a.heic"], ("no images found", "ignored 1 other files: apple/a.heic")),
    ],
)
def test_unclear_layout_is_refused_by_file(tmp_path, refused, files, words):
    with refused(f"--data {tmp_path}: ", *words):
        sources.load(str(write(tmp_path, files)))


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("apple_1", "apple"),
        ("apple10", "apple"),
        ("red apple (3)", "red apple"),
        ("apple_1 (2)", "apple"),
        ("r2d2_1", "r2d2"),
        ("pomme-d'or-07", "pomme-d'or"),
    ],
)
def test_loose_files_are_labelled_by_their_name(tmp_path, name, label):
    assert read(write(tmp_path, [f"{name}.png"])).classes == (label,)


def test_mixed_photos_are_left_out_unless_asked_for(tmp_path):
    write(
        tmp_path, ["train_zip/train/apple_1.jpg", "train_zip/train/mixed_2.jpg", "test_zip/test/apple_3.jpg"]
    )
    write(tmp_path, {"train_zip/train/apple_1.xml": b"<annotation/>"})
    images = read(tmp_path)
    assert labels(images) == {"train_zip/train/apple_1.jpg": "apple", "test_zip/test/apple_3.jpg": "apple"}
    assert [p.split for p in images.photos] == [TEST, TRAIN]
    assert images.notes == ()
    assert read(tmp_path, also=("mixed",)).classes == ("apple", "mixed")


def test_validation_folder_joins_training(tmp_path):
    images = read(write(tmp_path, ["train/a/1.png", "val/a/2.png", "test/a/3.png"]))
    assert (len(images.of(TRAIN)), len(images.of(TEST))) == (2, 1)


def test_nested_folders_belong_to_the_first(tmp_path):
    images = read(write(tmp_path, ["apple/red/small/a.png", "pear/b.png"]))
    assert images.counts() == {"apple": 1, "pear": 1}


@pytest.mark.parametrize("name", ["red apple", "りんご", "a<b>c", "naïve", "50% off; 'x'"])
def test_any_class_name_survives(tmp_path, name):
    images = read(write(tmp_path, [f"{name}/a.png"]))
    assert images.classes == (name,)
    assert images.photos[0].path == f"{name}/a.png"


def test_name_that_is_not_utf8_is_refused(tmp_path, refused):
    write(tmp_path, ["apple/a.png"])
    (tmp_path / os.fsdecode(b"p\xe4r")).mkdir()
    with refused("not a name in UTF-8"):
        read(tmp_path)


def test_linked_folders_are_read_and_loops_end(tmp_path):
    write(tmp_path / "store", ["a.png", "b.png"])
    root = write(tmp_path / "set", ["pear/c.png"])
    (root / "apple").symlink_to(tmp_path / "store")
    (root / "pear" / "again").symlink_to(root)
    (root / "pear" / "itself").symlink_to(root / "pear" / "itself")
    assert read(root).counts() == {"apple": 2, "pear": 1}


def test_broken_link_is_named(tmp_path, refused):
    write(tmp_path, ["apple/a.png"])
    (tmp_path / "apple" / "b.png").symlink_to(tmp_path / "gone.png")
    with refused("apple/b.png", "a broken link"):
        read(tmp_path)


def test_pipe_with_an_image_name_does_not_block(tmp_path, refused):
    write(tmp_path, ["apple/a.png"])
    os.mkfifo(tmp_path / "apple" / "b.png")
    with refused("apple/b.png", "not a file"):
        read(tmp_path)


def test_photo_reads_its_own_file_later(tmp_path, refused):
    images = read(write(tmp_path, {"apple/a.png": encoded(noise(1)), "apple/b.png": encoded(noise(2))}))
    assert [p.read() for p in images.photos] == [encoded(noise(1)), encoded(noise(2))]
    (tmp_path / "apple/b.png").unlink()
    with refused("apple/b.png", "cannot be read"):
        images.photos[1].read()


def test_description_counts_by_split_and_class(tmp_path):
    write(tmp_path, ["train/x/1.png", "train/x/2.png", "train/y/3.png", "test/y/4.png"])
    line = describe(folders.read(tmp_path, name="letters"))
    assert line == "letters: test 1 (x 0, y 1); train 3 (x 2, y 1)"
