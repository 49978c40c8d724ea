"""Many rows, and several processes."""

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import forks
import launches
import pictures
import pytest
import stub_sampler
from stub_sampler import rows

from generate.outputs import folder as folders
from orchard import shards

ROWS, SHARD = 100_000, 1_000


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"candidates": 3, "keep": "random", "guidance": "1.5..3"}])
def test_one_two_and_three_processes_screen_and_top_up_to_the_same_rows(tmp_path, base, photos, more):
    options = {"base": str(base), "data": str(photos), "classes": ("apple", "pear"), "count": 20}
    # Shards of four batches: with two and three processes most are cut.
    options |= {"batch_size": 4, "shard_size": 16, "precision": "fp32", "reject_limit": 4, **more}
    for number in (1, 2, 3):
        output = {"output": str(tmp_path / str(number))}
        assert launches.wait(launches.start(number, options | output, draw="unlucky")) == [0] * number
    wanted = {split: rows(tmp_path / "1", split) for split in ("train", "rejected")}
    reasons = {"flat", "duplicate", *(["not chosen"] if more else [])}
    assert len(wanted["train"]) == 40 and {r["reason"] for r in wanted["rejected"]} == reasons
    for number in ("2", "3"):
        assert {split: rows(tmp_path / number, split) for split in wanted} == wanted


@pytest.mark.slow
def test_planning_and_resuming_100_000_rows_take_seconds_and_little_memory(tmp_path, base, photos):
    process = forks.start(_plan_and_resume, tmp_path, base, photos)
    process.join(300)
    assert process.exitcode == 0
    planning, resuming = json.loads((tmp_path / "measured.json").read_text())
    print(f"planning and resuming: seconds and bytes {planning}, {resuming}")
    assert planning[0] < 10 and planning[1] < 50e6
    assert resuming[0] < 30 and resuming[1] < 50e6


def _plan_and_resume(folder: Path, base: Path, photos: Path) -> None:
    """In a process of its own: to stop tracemalloc while another thread frees memory may crash Python."""
    options = {
        "count": ROWS,
        "shard_size": SHARD,
        "screens": ("flat",),
        "data": str(photos),
        "batch_size": 50,
    }
    patch = pytest.MonkeyPatch()
    _, *planning = _measured(
        lambda: stub_sampler.generate(patch, base, folder / "s", dry_run=True, **options)
    )
    _fill(patch, base, folder / "s", options)
    shards.path_of(folder / "s", "apple", 57).unlink()
    drawn, *resuming = _measured(lambda: stub_sampler.generate(patch, base, folder / "s", _small, **options))
    assert drawn == SHARD
    assert shards.read_manifest(folder / "s")["rows"] == {"apple": ROWS}
    (folder / "measured.json").write_text(json.dumps([planning, resuming]))


def _measured(call: Callable[[], int]) -> tuple[int, float, int]:
    """What ``call`` gives, its seconds of CPU and the bytes that Python held at most."""
    tracemalloc.start()
    tracemalloc.reset_peak()
    before, started = tracemalloc.get_traced_memory()[0], time.process_time()
    value = call()
    return value, time.process_time() - started, tracemalloc.get_traced_memory()[1] - before


def _small(one):
    return pictures.noise(one.seed, (8, 8))


def _fill(monkeypatch, base, folder, options):
    """Every shard of the plan with one and the same small picture, since it is not looked at."""
    plans = []
    gaps = folders.gaps
    with monkeypatch.context() as patch:
        patch.setattr(folders, "gaps", lambda where, planned: plans.extend(planned) or gaps(where, planned))
        stub_sampler.generate(patch, base, folder, dry_run=True, **options)
    data = pictures.encoded(_small(stub_sampler.row(0)))
    for number in range(ROWS // SHARD):
        numbers = range(number * SHARD, (number + 1) * SHARD)
        shared = {
            "image": {"bytes": data, "path": "x.png"},
            "label": 0,
            "prompt": "a",
            "seed": 1,
            "reason": "",
        }
        shards.store(folder, number, [shared | {"index": k} for k in numbers], plans[0].header)
