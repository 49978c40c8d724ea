"""Decoded images in memory and on disk are the same, and nothing stays of either."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from pictures import encoded, half_a_jpeg, noise, photo

from orchard import memory
from orchard.errors import UserError
from orchard.files import scratch
from orchard.images import arrays, images
from orchard.images.arrays import Rows, decoded, joined

SIDE = 8


@pytest.fixture
def on_disk(monkeypatch, tmp_path):
    """Nothing is small enough for the memory; the folder of what is kept elsewhere."""
    monkeypatch.setattr(arrays, "SHARE", 0)
    monkeypatch.setattr(scratch, "folder", lambda: tmp_path)
    return tmp_path


def photos(count: int) -> list[images.Photo]:
    return [photo(f"{seed}.png", "x", data=encoded(noise(seed, (SIDE, SIDE)))) for seed in range(count)]


def expected(count: int) -> np.ndarray:
    return np.stack([np.asarray(noise(seed, (SIDE, SIDE))) for seed in range(count)])


def mapped(array: np.ndarray) -> bool:
    return isinstance(array.base, np.memmap)


def test_images_are_the_same_in_memory_and_on_disk_where_no_file_stays(on_disk, monkeypatch):
    there = decoded(photos(70), SIDE)
    assert mapped(there) and list(on_disk.iterdir()) == []
    assert np.array_equal(there, expected(70))
    monkeypatch.setattr(arrays, "SHARE", 0.5)
    here = decoded(photos(70), SIDE)
    assert not mapped(here) and here.dtype == there.dtype == np.uint8
    assert np.array_equal(here, there)
    assert decoded([], SIDE).shape == (0, SIDE, SIDE, 3)


def test_as_much_as_its_share_of_the_memory_is_kept_there(monkeypatch):
    size = 4 * SIDE * SIDE * 3
    for free, kept in ((2 * size, True), (2 * size - 2, False)):
        monkeypatch.setattr(memory, "free", lambda free=free: free)
        assert mapped(decoded(photos(4), SIDE)) != kept


def test_a_full_disk_is_one_line_before_anything_is_read(on_disk, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**30))

    def never() -> bytes:
        raise AssertionError

    many = [replace(photos(1)[0], read=never)] * 400
    with pytest.raises(UserError, match=r"400 images at 1024 px take 1\.2 GiB, .* 1\.0 GiB; make room there"):
        decoded(many, 1024)


def test_a_damaged_photo_is_named_wherever_images_are_kept(on_disk, monkeypatch):
    damaged = [*photos(3), photo("half.jpg", "x", data=half_a_jpeg())]
    for share in (0, 0.5):
        monkeypatch.setattr(arrays, "SHARE", share)
        with pytest.raises(UserError, match=r"half\.jpg: not a whole image"):
            decoded(damaged, SIDE)
    assert list(on_disk.iterdir()) == []


def test_every_image_is_told_of_once():
    told = []
    decoded(photos(5), SIDE, advance=told.append)
    assert told == [1] * 5


def test_who_stops_waits_for_no_more_than_is_under_way():
    read = []

    def one(place: int) -> images.Photo:
        made = photo(f"{place}.png", "x", data=encoded(noise(place, (SIDE, SIDE))))
        return replace(made, read=lambda: read.append(place) or made.read())

    rows = images.each([one(place) for place in range(20 * images.AHEAD)], SIDE)
    next(rows)
    rows.close()
    assert len(read) <= images.AHEAD + images.WORKERS + 1


def test_rows_are_those_of_the_arrays_that_they_come_from():
    first, second = np.arange(60, dtype=np.uint8).reshape(5, 2, 2, 3), np.full((2, 2, 2, 3), 9, np.uint8)
    both = joined(first, Rows(list(second), 2))
    whole = np.concatenate([first, second])
    assert both.shape == whole.shape and len(both) == 7
    for index in (slice(None), slice(1, 6, 2), np.array([6, 0, 0, 5]), np.array([], dtype=int)):
        assert np.array_equal(both[index], whole[index])
    assert np.array_equal(np.stack(list(both)), whole)
    assert np.shares_memory(both.rows[0], first)
    assert Rows([], 2)[:].shape == (0, 2, 2, 3)


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """The folder of the control groups, on a machine with 80 KiB free."""
    monkeypatch.setattr(memory, "_of_machine", lambda: 80 * 1024)
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "MEMBERSHIP", tmp_path / "member")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    (tmp_path / "member").write_text("12:cpu:/other\n4:memory,hugetlb:/box/1\n0::/job/step\n")
    return tmp_path / "cgroup"


def limited(folder, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_free_memory_is_the_least_that_the_machine_and_its_groups_leave(groups, monkeypatch):
    assert memory.free() == 80 * 1024
    limited(groups / "job" / "step", memory__max="max\n")
    assert memory.free() == 80 * 1024
    stat = "anon 20000\ninactive_file 15000\nactive_file 10000\n"
    limited(groups / "job", memory__max="50000\n", memory__current="45000\n", memory__stat=stat)
    assert memory.free() == 30_000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert memory.free() == 15_000


def test_groups_of_version_1_count_though_their_folder_may_be_the_containers_own(groups):
    files = {
        "memory__limit_in_bytes": "40000\n",
        "memory__usage_in_bytes": "30000\n",
        "memory__stat": "inactive_file 1\ntotal_inactive_file 5000\n",
    }
    limited(groups / "memory", **files)  # not /box/1, which the machine outside calls it
    assert memory.free() == 15_000


def test_each_process_of_a_launch_needs_room_for_a_file_of_its_own(on_disk, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=7 * SIDE * SIDE * 3))
    with pytest.raises(UserError, match="make room there"):
        decoded(photos(4), SIDE)
