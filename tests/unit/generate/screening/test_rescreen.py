"""Screening again: a set becomes what it had been with the other screens from the start; nothing is lost."""

import numpy as np
import pytest
import stub_sampler
from stub_sampler import FLAT, ends_within_one_write, flat_at, indices, noise, row, rows, unlucky

from generate.screening import screens
from orchard import shards

MANY = {"count": 20, "reject_limit": 4, "shard_size": 6}


@pytest.fixture
def rescreen(generate):
    """Judge a set anew; nothing may be sampled."""

    def run(folder, **options):
        usual = {"base": "", "classes": (), "count": 0, "batch_size": 16, "shard_size": 256}
        options = {**usual, "precision": "auto", "rescreen": True, **options}
        assert generate(folder, None, **options) == 0

    return run


def verdicts(folder, split):
    return [(r["index"], r["reason"], r["score"], r["image"]["bytes"]) for r in rows(folder, split)]


def test_other_screens_give_the_set_that_they_had_given_from_the_start(tmp_path, generate, rescreen, capsys):
    generate(tmp_path / "s", unlucky, **MANY)
    sampled = {r["index"] for split in ("train", "rejected") for r in rows(tmp_path / "s", split)}
    rescreen(tmp_path / "s", screens=("duplicate",))
    assert "kept 20 before" in capsys.readouterr().out
    kept = len(indices(tmp_path / "s"))
    assert kept > 20
    generate(tmp_path / "direct", unlucky, **{**MANY, "count": kept}, screens=("duplicate",))
    assert verdicts(tmp_path / "s", "train") == verdicts(tmp_path / "direct", "train")
    assert {r["index"] for split in ("train", "rejected") for r in rows(tmp_path / "s", split)} == sampled
    # The same command with the new screens goes on from there, and the old ones bring back what was.
    generate(tmp_path / "s", unlucky, **{**MANY, "count": kept + 3}, screens=("duplicate",))
    assert len(indices(tmp_path / "s")) == kept + 3
    rescreen(tmp_path / "s")
    generate(tmp_path / "again", unlucky, **{**MANY, "count": len(indices(tmp_path / "s"))})
    assert verdicts(tmp_path / "s", "train") == verdicts(tmp_path / "again", "train")


def test_header_manifest_and_card_tell_the_new_screens(tmp_path, generate, rescreen, photos):
    generate(tmp_path / "s", flat_at(1, 3), classes=("apple", "pear"))
    rescreen(tmp_path / "s", screens=("memorised",), data=str(photos))
    manifest = shards.read_manifest(tmp_path / "s")
    assert all(list(one["screens"]) == ["memorised"] for one in manifest["arguments"].values())
    assert len(manifest["screened_with"]["memorised"]) == 8
    assert manifest["rows"] == {"apple": 12, "pear": 12} and manifest["rejected_files"] == []
    assert all(r["nearest_train"] > 0 for r in rows(tmp_path / "s"))
    assert "| memorised |" in (tmp_path / "s" / "README.md").read_text()
    assert shards.read(tmp_path / "s").counts() == {"apple": 12, "pear": 12}


def test_what_is_stored_is_not_measured_anew(tmp_path, generate, rescreen, photos, monkeypatch):
    generate(tmp_path / "s", flat_at(1), screens=("flat", "duplicate", "memorised"), data=str(photos))
    monkeypatch.setattr(screens, "contrast", None)
    monkeypatch.setattr(screens, "memorised", lambda train: None)
    before = {r["index"]: r["nearest_train"] for r in rows(tmp_path / "s")}
    rescreen(tmp_path / "s", screens=("memorised",), data=str(photos))
    assert before.items() <= {r["index"]: r["nearest_train"] for r in rows(tmp_path / "s")}.items()


def test_what_other_photos_were_behind_is_measured_anew(tmp_path, generate, rescreen, photos):
    generate(tmp_path / "s", screens=("memorised",), data=str(photos))
    before = [r["nearest_train"] for r in rows(tmp_path / "s")]
    other = stub_sampler.photos(tmp_path / "other", per_class=3)
    rescreen(tmp_path / "s", screens=("memorised",), data=str(other))
    assert not np.allclose(before, [r["nearest_train"] for r in rows(tmp_path / "s")])


def test_it_is_a_way_out_after_too_many_were_rejected(tmp_path, generate, rescreen, refused):
    draw = lambda one: noise(one) if one.index in (0, 15) else FLAT  # noqa: E731
    with refused("apply other --screens to what is there with --rescreen"):
        generate(tmp_path / "s", draw)
    rescreen(tmp_path / "s", screens=("none",))
    assert indices(tmp_path / "s") == list(range(20))
    assert shards.read(tmp_path / "s").counts()["apple"] == 20
    assert generate(tmp_path / "s", draw, screens=("none",)) == 0


def test_a_screening_that_is_stopped_anywhere_loses_nothing_and_ends_the_same(
    tmp_path, generate, rescreen, monkeypatch
):
    """Every write of a file is in turn the last one that a run gets to do; rows move both ways."""
    copies = lambda one: noise(row(0)) if one.index in (4, 9, 10) else flat_at(1, 7, 8)(one)  # noqa: E731
    generate(tmp_path / "whole", copies, screens=("flat",), count=12, shard_size=4)
    generate(tmp_path / "stopped", copies, screens=("flat",), count=12, shard_size=4)
    images = {
        r["index"]: r["image"] for split in ("train", "rejected") for r in rows(tmp_path / "whole", split)
    }
    rescreen(tmp_path / "whole", screens=("duplicate",))
    wanted = {split: rows(tmp_path / "whole", split) for split in ("train", "rejected")}
    assert {r["reason"] for r in wanted["rejected"]} == {"duplicate"} and len(wanted["train"]) > 9
    stops = 0
    while not ends_within_one_write(lambda: rescreen(tmp_path / "stopped", screens=("duplicate",))):
        there = {r["index"]: r["image"] for split in wanted for r in rows(tmp_path / "stopped", split)}
        assert there == images
        stops += 1
        assert stops < 20
    assert stops > 3
    assert {split: rows(tmp_path / "stopped", split) for split in wanted} == wanted


def test_another_rule_moves_rows_both_ways(tmp_path, generate, rescreen, refused):
    options = {"candidates": 3, "keep": "random", "count": 4}
    generate(tmp_path / "s", **options)
    with refused("apple has 3 candidates an image", "--keep RULE"):
        rescreen(tmp_path / "s")
    first = indices(tmp_path / "s")
    rescreen(tmp_path / "s", keep="random", screens=("none",))
    assert indices(tmp_path / "s") == first
    generate(tmp_path / "plain")
    with refused("--keep random", "no --candidates"):
        rescreen(tmp_path / "plain", keep="random")


def test_nothing_is_written_where_nothing_would_be_kept(tmp_path, generate, rescreen, refused):
    generate(tmp_path / "s", lambda one: FLAT, screens=("none",))
    with refused("of class apple nothing would be kept"):
        rescreen(tmp_path / "s", screens=("flat",))
    assert (tmp_path / "s" / "manifest.json").is_file() and len(indices(tmp_path / "s")) == 10


def test_a_folder_without_images_and_a_class_that_is_not_there_are_refused(
    tmp_path, generate, rescreen, refused
):
    with refused("--rescreen", "has no images"):
        rescreen(tmp_path / "none")
    generate(tmp_path / "s")
    with refused("--classes kiwi", "has apple"):
        rescreen(tmp_path / "s", classes=("kiwi",))


def test_a_dry_run_says_what_would_be_judged_and_writes_nothing(tmp_path, generate, rescreen, capsys):
    generate(tmp_path / "s", flat_at(2))
    before = verdicts(tmp_path / "s", "rejected")
    capsys.readouterr()
    rescreen(tmp_path / "s", screens=("none",), dry_run=True)
    said = capsys.readouterr().out
    assert "apple: 10 images kept and 1 rejected are there" in said and "screens   none" in said
    assert verdicts(tmp_path / "s", "rejected") == before
