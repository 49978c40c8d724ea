"""How many rows each class gets, which real image guides which, and what a large plan costs."""

import itertools
import time
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pictures
import plans
import pytest

from generate.config import Generate
from generate.planning import init_images, jobs, plan_text
from orchard.datasets import sources
from orchard.images import splits
from orchard.images.images import TEST, TRAIN

LABELS = ["apple", "pear", "plum"]


@pytest.fixture
def real(tmp_path):
    """Seven apples, four pears and two plums to train on, and a test split that is the other way round."""
    train, test = {"apple": 7, "pear": 4, "plum": 2}, {"apple": 1, "pear": 1, "plum": 9}
    files = [f"train/{label}/{i}.png" for label, n in train.items() for i in range(n)]
    files += [f"test/{label}/t{i}.png" for label, n in test.items() for i in range(n)]
    pictures.write(tmp_path / "real", files)
    return str(tmp_path / "real")


def test_the_usual_count_is_for_each_class():
    assert jobs.rows_of(Generate(), LABELS) == dict.fromkeys(LABELS, 200)
    assert jobs.rows_of(Generate(count=3), LABELS) == dict.fromkeys(LABELS, 3)


def test_a_total_is_shared_out_and_grows_class_by_class():
    shares = [jobs.rows_of(Generate(total=n), LABELS) for n in range(1, 12)]
    for total, share in enumerate(shares, 1):
        assert sum(share.values()) == total
        assert max(share.values()) - min(share.values()) <= 1
    for smaller, larger in itertools.pairwise(shares):
        assert all(smaller[label] <= larger[label] for label in LABELS)


def test_balancing_fills_up_the_training_images_to_the_largest_class(real):
    found = jobs.rows_of(Generate(balance="largest", data=real), LABELS)
    assert found == {"apple": 0, "pear": 3, "plum": 5}
    assert jobs.rows_of(Generate(balance=5, data=real), LABELS) == {"apple": 0, "pear": 1, "plum": 3}


def test_balancing_that_has_nothing_to_do_is_refused(real, refused):
    with refused("--balance 2", "nothing to fill", "plum 2", "larger number"):
        jobs.rows_of(Generate(balance=2, data=real), LABELS)
    with refused("--balance", "no class kiwi"):
        jobs.rows_of(Generate(balance="largest", data=real), ["apple", "kiwi"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 5, "total": 9}, ("--count and --total", "one of them")),
        ({"total": 9, "balance": "largest"}, ("--total and --balance", "one of them")),
        ({"balance": 0}, ("--balance 0",)),
        ({"strength": 0.0}, ("--strength 0.0",)),
        ({"attempts": 0}, ("--attempts 0",)),
        ({"fuse": True, "lora": ("a.safetensors",)}, ("--fuse", "two or more")),
    ],
)
def test_options_that_contradict_each_other_are_refused(refused, options, words):
    with refused(*words):
        Generate(**options).require_valid()


def test_guides_are_training_images_of_the_class_each_used_as_often(real):
    found = init_images.load(real, "plum", 0)
    held_out = sources.load(real).of(TEST).hashes()
    used = Counter(found.of(index).sha256 for index in range(7))
    assert sorted(used.values()) == [3, 4]
    assert not used.keys() & held_out
    train = sources.load(real).of(TRAIN)
    assert used.keys() == {photo.sha256 for photo in train.photos if photo.label == "plum"}


def test_a_guide_depends_on_seed_class_and_index(real):
    chosen = [[init_images.load(real, "apple", seed).of(k).sha256 for k in range(14)] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert sorted(chosen[0][:7]) == sorted(chosen[0][7:])
    assert chosen[0][:7] != chosen[0][7:]


def test_guides_that_are_no_whole_images_are_refused_as_far_as_they_are_used(real, refused):
    guides = init_images.load(real, "apple", 0)
    last = guides.of(6)
    path = Path(real) / last.path
    path.write_bytes(path.read_bytes()[:60])
    (broken,) = [photo for photo in init_images.load(real, "apple", 0).photos if photo.path == last.path]
    guides = replace(guides, photos=tuple(broken if p.path == last.path else p for p in guides.photos))
    place = next(index for index in range(7) if guides.of(index).path == last.path)
    guides.require_whole(place)
    with refused(last.path, "not a whole image"):
        guides.require_whole(place + 1)


def test_guides_that_are_not_there_are_refused(real, refused):
    with refused("--image_guidance", "no training image of class kiwi"):
        init_images.load(real, "kiwi", 0)
    with refused("--image_guidance nowhere"):
        init_images.load("nowhere", "apple", 0)


def test_the_next_seed_of_a_row_depends_on_its_place_and_attempt_alone():
    row = plans.class_plan().row(3)
    second, third = row.again(), row.again().again()
    assert (second.attempt, third.attempt) == (1, 2)
    assert len({row.seed, second.seed, third.seed, plans.class_plan().row(4).again().seed}) == 4
    assert second == plans.class_plan(count=100).row(3).again()


def test_the_plan_counts_how_often_each_prompt_comes():
    plan = plans.class_plan(count=8, prompts=("a", "b", "a"))
    assert plan_text.times(plan) == Counter(row.prompt for row in plans.rows(plan)) == {"a": 5, "b": 3}


@pytest.mark.heavy
def test_a_hundred_thousand_rows_are_planned_at_once_and_take_no_memory():
    plan = plans.class_plan(count=100_000, prompts=tuple(map(str, range(48))))
    started = time.monotonic()
    tracemalloc.start()
    shards = list(plan.shards(256))
    total = sum(len(block) for shard in shards for block in shard.batches(16))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 100_000
    assert shards[-1].indices == range(99_840, 100_000)
    assert peak < 2**20
    assert time.monotonic() - started < 60
    assert splits.stable_hash(0, "apple", 99_999) == plan.row(99_999).seed
