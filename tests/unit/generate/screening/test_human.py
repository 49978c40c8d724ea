"""A person's decisions are a screen: what is rejected is kept apart and replaced, and can come back."""

import numpy as np
import pytest
from stub_sampler import flat_at, indices, noise, row, rows

from orchard import decisions, shards
from orchard.images.images import sha256


def decide(folder, verb, *numbers, label="apple", reviewer="ann"):
    found = [r for split in ("train", "rejected") for r in rows(folder, split)]
    there = {r["index"]: r for r in found if r["image"]["path"].startswith(label)}
    images = {there[n]["image"]["path"]: sha256(there[n]["image"]["bytes"]) for n in numbers}
    decisions.act(folder / decisions.FILE, verb, images, reviewer)


def test_what_a_person_rejects_is_kept_apart_and_replaced_by_the_next_number(tmp_path, generate, capsys):
    generate(tmp_path / "s")
    decide(tmp_path / "s", "reject", 2, 5)
    decide(tmp_path / "s", "keep", 0, 1)
    assert generate(tmp_path / "s") > 0
    assert "review    " in capsys.readouterr().out
    assert indices(tmp_path / "s") == [0, 1, 3, 4, 6, 7, 8, 9, 10, 11]
    assert [(r["index"], r["reason"]) for r in rows(tmp_path / "s", "rejected")] == [
        (2, "human"),
        (5, "human"),
    ]
    assert generate(tmp_path / "s") == 0
    manifest = shards.read_manifest(tmp_path / "s")
    (said,) = manifest["reviews"]
    assert (said["reviewer"], said["kept"], said["rejected"]) == ("ann", 2, 2)
    assert manifest["rejected"] == {"apple": {"human": 2}}
    card = (tmp_path / "s" / "README.md").read_text()
    assert "a person rejected it" in card and "ann kept 2 and rejected 2" in card


def test_a_review_is_not_followed_in_a_set_that_was_altered(tmp_path, generate, refused):
    generate(tmp_path / "s")
    decide(tmp_path / "s", "reject", 2)
    path = shards.path_of(tmp_path / "s", "apple", 0)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 40] ^= 1
    path.write_bytes(data)
    with refused(path.name, "delete it and run generate again"):
        generate(tmp_path / "s")
    assert path.read_bytes() == data


def test_what_the_review_brought_can_be_measured(tmp_path, generate):
    """`evaluate --controls screens` takes the set as it would be without the screen."""
    generate(tmp_path / "s", flat_at(3))
    before = shards.read(tmp_path / "s").hashes()
    decide(tmp_path / "s", "reject", 2, 5)
    generate(tmp_path / "s", flat_at(3))
    assert shards.rejections(shards.read_manifest(tmp_path / "s")) == {"flat": 1, "human": 2}
    assert shards.read_unscreened(tmp_path / "s", "human").hashes() == before


def test_the_experiment_has_the_set_without_the_review_as_a_control(tmp_path, generate, photos):
    from evaluate.config import Evaluate
    from evaluate.experiment.image_sets import load
    from evaluate.experiment.mixtures import parse

    generate(tmp_path / "s", classes=("apple", "pear"))
    before = shards.read(tmp_path / "s").hashes()
    decide(tmp_path / "s", "reject", 2)
    generate(tmp_path / "s", classes=("apple", "pear"))
    config = Evaluate(data=str(photos), synthetic=str(tmp_path / "s"), controls=("screens",))
    sets = load(config, parse(("0.5",)))
    assert {name: images.hashes() for name, images in sets.unscreened.items()} == {"human": before}
    assert len(sets.synthetic.hashes() ^ before) == 2


def test_what_is_taken_back_returns_and_what_replaced_it_stays(tmp_path, generate):
    generate(tmp_path / "s")
    decide(tmp_path / "s", "reject", 2)
    generate(tmp_path / "s")
    decide(tmp_path / "s", "undo")
    assert generate(tmp_path / "s") == 0
    assert indices(tmp_path / "s") == list(range(11)) and not rows(tmp_path / "s", "rejected")


def test_a_copy_of_what_a_person_rejects_does_not_take_its_place(tmp_path, generate):
    draw = lambda one: noise(row(2)) if one.index == 5 else noise(one)  # noqa: E731
    generate(tmp_path / "s", draw)
    decide(tmp_path / "s", "reject", 2)
    generate(tmp_path / "s", draw)
    reasons = {r["index"]: r["reason"] for r in rows(tmp_path / "s", "rejected")}
    assert reasons == {2: "human", 5: "duplicate"}


def test_another_candidate_of_its_place_is_kept_instead(tmp_path, generate):
    options = {"candidates": 2, "keep": "random", "count": 4}
    generate(tmp_path / "s", **options)
    first = indices(tmp_path / "s")
    decide(tmp_path / "s", "reject", first[1])
    assert generate(tmp_path / "s", **options) == 0
    assert indices(tmp_path / "s") == [first[0], first[1] ^ 1, *first[2:]]


@pytest.mark.parametrize("screens", [("flat", "duplicate"), ("none",)])
def test_screening_again_keeps_to_the_decisions(tmp_path, generate, screens):
    generate(tmp_path / "s", flat_at(3))
    decide(tmp_path / "s", "reject", 2)
    usual = {"base": "", "classes": (), "count": 0, "batch_size": 16, "shard_size": 256, "precision": "auto"}
    generate(tmp_path / "s", None, rescreen=True, screens=screens, **usual)
    assert 2 not in indices(tmp_path / "s")
    assert {r["reason"] for r in rows(tmp_path / "s", "rejected") if r["index"] == 2} == {"human"}


def test_a_decision_does_not_fall_on_another_image_of_the_same_name(tmp_path, generate):
    generate(tmp_path / "s")
    decide(tmp_path / "s", "reject", 2)
    said = (tmp_path / "s" / decisions.FILE).read_bytes()
    generate(tmp_path / "other", lambda one: noise(row(one.index + 50)))
    (tmp_path / "other" / decisions.FILE).write_bytes(said)
    assert generate(tmp_path / "other") == 0
    assert indices(tmp_path / "other") == list(range(10))


def test_real_photos_that_a_reviewer_saw_count_as_seen(tmp_path, generate):
    generate(tmp_path / "s")
    digest = sha256(b"a photo")
    decisions.act(tmp_path / "s" / decisions.FILE, "shown", {"apple/1.jpg": digest}, "ann")
    decide(tmp_path / "s", "reject", 2)
    generate(tmp_path / "s")
    manifest = shards.read_manifest(tmp_path / "s")
    assert manifest["screened_with"]["human"] == [digest]
    assert digest in shards.read(tmp_path / "s").seen


def test_two_classes_and_several_shards_follow_their_own_decisions(tmp_path, generate):
    options = {"classes": ("apple", "pear"), "shard_size": 4, "count": 12}
    generate(tmp_path / "s", **options)
    images = {
        r["image"]["path"]: sha256(r["image"]["bytes"]) for r in rows(tmp_path / "s") if r["index"] in (1, 9)
    }
    assert len(images) == 4
    decisions.act(tmp_path / "s" / decisions.FILE, "reject", images, "ann")
    generate(tmp_path / "s", **options)
    assert shards.read(tmp_path / "s").counts() == {"apple": 12, "pear": 12}
    kept = [r["index"] for r in rows(tmp_path / "s")]
    assert np.bincount(kept)[[1, 9, 12, 13]].tolist() == [0, 0, 2, 2]
