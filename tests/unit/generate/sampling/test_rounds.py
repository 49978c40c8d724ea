"""What takes the place of rejected images, round after round; the outcome depends on the plan alone."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import plans
import pytest
from stub_sampler import CLASSES, FLAT, ends_within_one_write, flat_at, indices, noise, rows, unlucky

from generate.config import Generate
from generate.outputs.folder import Task
from generate.planning.jobs import jobs
from generate.planning.ranges import Range
from generate.sampling import rounds, tasks


def test_the_outcome_is_the_same_however_the_run_went(tmp_path, generate):
    options = {"count": 40, "reject_limit": 4}
    generate(tmp_path / "whole", unlucky, **options)
    wanted = {split: rows(tmp_path / "whole", split) for split in ("train", "rejected")}
    assert len(wanted["train"]) == 40
    assert {r["reason"] for r in wanted["rejected"]} == {"flat", "duplicate"}
    generate(tmp_path / "grown", unlucky, **{**options, "count": 7})
    few = rows(tmp_path / "grown")
    generate(tmp_path / "grown", unlucky, **{**options, "count": 23})
    generate(tmp_path / "grown", unlucky, **options, batch_size=5)
    assert few == wanted["train"][:7]
    for split, found in wanted.items():
        assert rows(tmp_path / "grown", split) == found
    for name in ("train-apple-00001", "rejected-apple-00002"):
        (tmp_path / "whole" / "data" / f"{name}.parquet").unlink()
        generate(tmp_path / "whole", unlucky, **options)
        assert {split: rows(tmp_path / "whole", split) for split in wanted} == wanted


def test_a_run_that_is_stopped_anywhere_ends_in_the_same_rows(tmp_path, generate):
    """Every write of a file is in turn the last one that a run gets to do."""
    options = {"count": 14, "reject_limit": 4}
    generate(tmp_path / "whole", unlucky, **options)
    wanted = {split: rows(tmp_path / "whole", split) for split in ("train", "rejected")}
    stops = 0
    while not ends_within_one_write(lambda: generate(tmp_path / "stopped", unlucky, **options)):
        stops += 1
        assert stops < 20
    assert stops > 4
    assert {split: rows(tmp_path / "stopped", split) for split in wanted} == wanted


def test_a_run_that_rejects_too_much_stops_and_can_be_gone_on_with(tmp_path, generate, refused):
    with refused("class apple: requested 10, written 2, flagged 0, rejected 18", "--reject_limit 1"):
        generate(tmp_path / "s", lambda one: noise(one) if one.index in (0, 15) else FLAT)
    assert not (tmp_path / "s" / "manifest.json").exists()
    draw = lambda one: noise(one) if one.index in (0, 15) or one.index > 30 else FLAT  # noqa: E731
    generate(tmp_path / "s", draw, reject_limit=9)
    assert indices(tmp_path / "s") == [0, 15, *range(31, 39)]


def test_what_replaces_a_rejected_image_has_the_prompt_guide_and_seed_of_its_own_number(
    tmp_path, generate, base, photos, capsys
):
    options = {"vary": ("light=dim", "light=bright", "light="), "image_guidance": str(photos), "count": 6}
    options |= {"data": str(photos), "classes": ("apple",), "screens": ("flat",)}
    generate(tmp_path / "s", flat_at(0, 4), **options)
    plan = jobs(Generate(base=str(base), **options), "fp32")[0].plan
    found = rows(tmp_path / "s")
    assert [r["index"] for r in found] == [1, 2, 3, 5, 6, 7]
    for r in [*found, *rows(tmp_path / "s", "rejected")]:
        wanted = plan.row(r["index"])
        assert (r["prompt"], r["guide"], r["seed"]) == (wanted.prompt, wanted.guide.sha256, wanted.seed)
    assert len({r["prompt"] for r in found}) == 3
    assert "requested 6, written 6, flagged 0, rejected 2" in capsys.readouterr().out


def test_a_class_whose_images_are_all_rejected_stops_the_run(tmp_path, generate, refused):
    with refused("class apple: requested 10, written 0, flagged 0, rejected 20"):
        generate(tmp_path / "s", lambda one: FLAT)


def processes(number):
    return [
        SimpleNamespace(process_index=i, num_processes=number, is_main_process=False) for i in range(number)
    ]


@pytest.mark.parametrize("strength", [None, Range(0.4, 0.8)])
@pytest.mark.parametrize("number", [1, 2, 3, 8, 40])
def test_processes_have_as_many_batches_each_and_every_row_once(number, strength):
    leads = {"guidance": 1.0} | ({"strength": strength} if strength else {})
    plan = plans.class_plan(count=70, steering=plans.led(**leads))
    lacking = [n for n in range(70) if n not in (3, 20, 21)]
    there = [Task(job=None, shard=shard) for shard in plan.shards(32, lacking)]
    wanted = [span for task in there for span in task.shard.spans(4)]
    shares = [rounds.share(there, 4, state, cut=True) for state in processes(number)]
    found = [[span for task in share for span in task.shard.spans(4)] for share in shares]
    assert sorted(itertools.chain(*found)) == sorted(wanted)  # whole batches, none of them twice
    sizes = [len(spans) for spans in found]
    assert max(sizes) - min(sizes) <= 1 and (number != 8 or min(sizes) > 1)
    rows = [int(index) for share in shares for task in share for index in task.shard.indices]
    assert sorted(rows) == lacking
    assert all(
        index // 32 == task.shard.number for share in shares for task in share for index in task.shard.indices
    )


def test_shards_that_may_not_be_cut_go_to_one_process_whole():
    there = [Task(job=None, shard=shard) for shard in plans.class_plan(count=40).shards(8)]
    shares = [rounds.share(there, 4, state, cut=False) for state in processes(3)]
    assert [[task.shard.number for task in share] for share in shares] == [[0], [1, 2], [3, 4]]
    assert all(len(task.shard.indices) == 8 for share in shares for task in share)


def test_a_set_is_the_same_where_eight_at_once_write_to_four_shards(tmp_path, generate, monkeypatch):
    """Threads stand for processes: each has its own lock on the folder of the shards."""
    options = {"classes": CLASSES, "count": 24, "shard_size": 16, "batch_size": 4, "reject_limit": 4}
    generate(tmp_path / "whole", unlucky, **options)
    one, cut, drawing = tasks.sample_all, [], set()

    def at_once(folder, planned, samplers, screens, signer, state):
        def work(state):
            share = rounds.share(planned, 4, state, cut=True)
            cut.extend((task.job.label, task.shard.number) for task in share)
            drawing.add(threading.get_ident())
            one(folder, share, samplers, screens, signer, state)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, processes(8)))

    monkeypatch.setattr(rounds, "sample_all", at_once)
    generate(tmp_path / "shared", unlucky, **options)
    assert len(cut) > len(set(cut)) and len(drawing) > 1
    for split in ("train", "rejected"):
        assert rows(tmp_path / "shared", split) == rows(tmp_path / "whole", split)
