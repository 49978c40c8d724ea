"""The command: what it gathers, refuses and says; nothing is served where a test can do without."""

import re

import pictures
import pytest
from reviewing import act, served, synthetic
from shell import REVIEW, command, refusal

from orchard import decisions, shards
from orchard.files import lock
from orchard.images.images import decode, sha256
from review import items
from review.command import review
from review.config import Review


@pytest.fixture
def folder(tmp_path):
    return synthetic(tmp_path / "shards", {"apple": 6, "pear": 4})


@pytest.fixture
def photos(tmp_path):
    names = [
        f"{split}/{name}/{i}.png" for split in ("train", "test") for name in ("apple", "pear") for i in (0, 1)
    ]
    return pictures.write(tmp_path / "photos", names)


def test_a_dry_run_says_what_is_there_and_writes_nothing(tmp_path, folder, photos, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert review(Review(synthetic=str(folder), data=str(photos), dry_run=True)) == {}
    said = capsys.readouterr().out
    assert "apple 6, pear 4" in said and "4 training photos" in said and "0 of 10" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_photos_that_are_shown_are_training_photos_and_in_the_ledger(tmp_path, folder, photos, refused):
    words = ("--synthetic", folder, "--data", photos, "--reviewer", "ann")
    with served(*words, folder=tmp_path) as (_, address):
        assert act(address, "reject", 0)[0] == 200
        with refused(f"--output {folder}", "a review is open"), lock.writing(folder, Alone()):
            pass
    with lock.writing(folder, Alone()):  # once the page is closed
        pass
    shown = decisions.shown(decisions.read(folder / decisions.FILE))
    assert shown == {sha256(path.read_bytes()) for path in (photos / "train").rglob("*.png")}
    with served(*words, folder=tmp_path):
        pass
    assert len(decisions.read(folder / decisions.FILE)) == 2


class Alone:
    """One process."""

    is_main_process, num_processes = True, 1

    def wait_for_everyone(self):
        pass


def test_a_real_set_is_looked_through_with_its_findings(tmp_path, photos, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    twin = (photos / "train" / "apple" / "0.png").read_bytes()
    (photos / "test" / "pear" / "twin.bmp").write_bytes(pictures.encoded(decode(twin, ""), "BMP"))
    path = tmp_path / f"photos.{decisions.FILE}"
    photo = photos / "train" / "apple" / "1.png"
    decisions.act(path, "reject", {"train/apple/1.png": sha256(photo.read_bytes())}, "ann")
    found = review(Review(data=str(photos), dry_run=True))
    said = capsys.readouterr().out
    assert re.search(
        r"copy in another class: 2, test/pear/twin.bmp|copy in another class: 2, train/apple", said
    )
    assert "rejected  train/apple/1.png" in said and found == {"train/apple/1.png": "reject"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": 70000}, ("--port 70000", "1 to 65535")),
        ({"synthetic": "s", "backbone": "b"}, ("--backbone", "leave out --synthetic")),
        ({"synthetic": "s3://bucket/set"}, ("s3://bucket/set", "copy the set")),
        ({"synthetic": "none/there"}, ("none/there", "no such folder")),
        ({"reviewer": "a\nb"}, ("--reviewer", "on one line")),
    ],
)
def test_what_cannot_be_is_refused(refused, options, words):
    with refused(*words):
        review(Review(**options))


def test_a_set_of_other_classes_and_an_unfinished_one_are_refused(tmp_path, folder, refused):
    other = pictures.write(
        tmp_path / "other", [f"{name}/{i}.png" for name in ("kiwi", "plum") for i in range(3)]
    )
    with refused(f"--data {other}", "has no class of", "none"):
        review(Review(synthetic=str(folder), data=str(other)))
    (folder / shards.MANIFEST).unlink()
    with refused("not complete"):
        review(Review(synthetic=str(folder), data="none"))


def test_rows_are_read_one_by_one_and_rejected_ones_of_a_person_are_there(tmp_path, folder):
    found = items.of_shards(folder)
    assert [item.name for item in found] == [
        *(f"apple-{i:06d}.png" for i in range(6)),
        *(f"pear-{i:06d}.png" for i in range(4)),
    ]
    assert all(sha256(item.read()) == item.sha256 for item in found)
    assert (found[1].context, found[1].measures["contrast"]) == ("on grass", 1.0)


def test_help_and_a_refusal_come_as_from_the_other_commands(tmp_path):
    assert "--synthetic" in command(tmp_path, *REVIEW, "--help")
    line = refusal(tmp_path, *REVIEW, "--synthetik", "x")
    assert "--synthetic" in line
