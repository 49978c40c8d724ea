import errno
import os
import threading
from types import SimpleNamespace

import pytest

from orchard import memory
from orchard.errors import UserError
from orchard.files import scratch
from orchard.files.atomic import WriteError


def test_a_folder_that_lies_in_memory_or_cannot_be_written_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    mounts = [
        SimpleNamespace(mountpoint="/", fstype="tmpfs"),
        SimpleNamespace(mountpoint=str(tmp_path), fstype="ext4"),
    ]
    monkeypatch.setattr("psutil.disk_partitions", lambda all: mounts)
    assert scratch.folder() == tmp_path
    mounts[1].fstype = "tmpfs"
    with pytest.raises(UserError, match=r"lies in memory, .* point TMPDIR to a folder on a disk"):
        scratch.folder()
    (tmp_path / "file").touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"TMPDIR .*file: cannot be written"):
        scratch.folder()


def test_what_memory_has_no_room_for_is_read_from_a_file_that_has_no_name(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(scratch, "_in_memory", lambda path: False)  # as /tmp may
    monkeypatch.setattr(memory, "free", lambda: 2000)
    kept = scratch.Kept()
    parts = [os.urandom(size) for size in (600, 300, 200, 0, 5000, 1)]
    found = [kept.keep(part) for part in parts]
    assert [read.func is bytes for read in found] == [True, True, False, False, False, False]
    assert list(tmp_path.iterdir()) == []
    assert [read() for read in found] == parts

    def check():
        for read, part in list(zip(found, parts, strict=True)) * 200:
            assert read() == part
        right.append(True)

    right: list[bool] = []
    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 4


def test_a_set_that_the_disk_has_no_room_for_is_refused(monkeypatch, tmp_path):
    def write(data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(memory, "free", lambda: 0)
    kept = scratch.Kept()
    kept.file, kept.place = SimpleNamespace(tell=lambda: 0, write=write), tmp_path
    with pytest.raises(WriteError, match=f"{tmp_path}: cannot be written"):
        kept.keep(b"something")


def test_no_folder_is_asked_for_where_memory_has_room(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/nowhere")
    assert scratch.Kept().keep(b"something")() == b"something"
