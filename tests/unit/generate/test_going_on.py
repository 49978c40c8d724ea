"""Going on with a folder: what is refused, what is said, and that what a message advises works."""

import json
import re
import shlex
from dataclasses import replace

import loras as random_loras
import numpy as np
import pyarrow.parquet as pq
import pytest
from checkers import NEVER, with_checker
from stub_sampler import FLAT, flat_at, indices, noise, rows

from generate.config import Generate
from generate.planning.jobs import jobs
from orchard import shards, software
from orchard.cli import cli
from orchard.errors import UserError

MIXED = {"vary": ("light=dim", "light=bright", "place=table", "place=grass", "pose=cut", "pose=whole")}


@pytest.fixture
def stopped(tmp_path, generate):
    """``stopped(12, 8)``: 12 images were asked for and 8 sampled before the run was stopped."""

    def run(asked, there, draw=noise, **options):
        folder = tmp_path / "s"

        def stop(one):
            if one.index == there:
                raise KeyboardInterrupt
            return draw(one)

        with pytest.raises(KeyboardInterrupt):
            generate(folder, stop, **{"count": asked, "batch_size": 4, "shard_size": 4, **options})
        return folder

    return run


def retold(path, header):
    """Make this the header of a shard, to the letter."""
    table = pq.read_table(path)
    metadata = table.schema.metadata | {shards.KEY: header.encoded()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def older(folder, *without):
    """Write the shards as a version did that knew no such arguments, and not what rows were made with."""
    for split in (shards.TRAIN, shards.REJECTED):
        for shard in shards.existing(folder, split):
            kept = {key: value for key, value in shard.header.arguments.items() if key not in without}
            header = replace(shard.header, arguments=kept, made_with=[], schema=2)
            retold(shard.path, header)
    (folder / shards.MANIFEST).unlink()


def test_phrases_in_the_old_order_are_not_gone_on_with(tmp_path, generate, refused):
    folder = tmp_path / "s"
    generate(folder, **MIXED)
    assert shards.read_manifest(folder)["arguments"]["apple"]["phrase_order"] == "balanced"
    older(folder, "phrase_order")
    with refused("apple is there with phrase_order diagonal (requested: balanced)", "another --output"):
        generate(folder, **MIXED, count=20)
    assert generate(tmp_path / "other", **MIXED, count=20) == 20


def test_phrases_whose_order_never_changed_are_gone_on_with(tmp_path, generate):
    folder = tmp_path / "s"
    generate(folder, vary=MIXED["vary"][:2])
    assert "phrase_order" not in shards.read_manifest(folder)["arguments"]["apple"]
    older(folder)
    generate(folder, vary=MIXED["vary"][:2], count=20)
    assert indices(folder) == list(range(20))


def test_a_set_of_an_older_version_is_gone_on_with_where_nothing_differs(tmp_path, generate):
    generate(tmp_path / "s")
    older(tmp_path / "s")
    generate(tmp_path / "s", count=20)
    assert indices(tmp_path / "s") == list(range(20))
    assert {shard.header.schema for shard in shards.existing(tmp_path / "s")} == {2, 4}


def test_compiled_rows_do_not_join_others(tmp_path, generate, refused):
    generate(tmp_path / "s")
    with refused("compile False (requested: True)"):
        generate(tmp_path / "s", compile=True, count=20)
    generate(tmp_path / "c", compile=True)
    with refused("compile True (requested: False)"):
        generate(tmp_path / "c", count=20)


def test_rows_that_a_checker_has_seen_do_not_join_others(tmp_path, generate, base, refused):
    checked = {"base": str(with_checker(base, tmp_path / "checked", NEVER))}
    generate(tmp_path / "s", **checked)
    with refused("safety_checker True (requested: False)"):
        generate(tmp_path / "s", **checked, safety_checker=False, count=20)
    older(tmp_path / "s", "safety_checker")  # whose shards did not say it; the checker is on by default
    with refused("safety_checker True (requested: False)"):
        generate(tmp_path / "s", **checked, safety_checker=False, count=20)
    generate(tmp_path / "s", **checked, count=20)
    assert indices(tmp_path / "s") == list(range(20))
    generate(tmp_path / "plain", safety_checker=False)  # of a base that has none the option says nothing
    generate(tmp_path / "plain", count=20)
    assert indices(tmp_path / "plain") == list(range(20))


def test_what_changes_pixels_by_rounding_is_noted_with_the_rows_and_said(
    tmp_path, generate, monkeypatch, capsys
):
    generate(tmp_path / "s", count=6)
    assert "note " not in capsys.readouterr().out
    monkeypatch.setattr(software, "versions", lambda: {"torch": "99.0"})
    generate(tmp_path / "s", count=20, batch_size=2, low_memory=True)
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("note"))
    assert "low_memory False (now: True)" in line and "batch_size 4 (now: 2)" in line
    assert re.search(r"torch \S+ \(now: 99.0\)", line)
    made = {shard.number: shard.header.made_with for shard in shards.existing(tmp_path / "s")}
    assert [one["batch_size"] for one in made[0]] == ["4", "2"]  # rows of both runs
    assert [one["torch"] for one in made[1]] == ["99.0"]
    found = json.loads((tmp_path / "s" / "manifest.json").read_text())["made_with"]["apple"]
    assert found == made[0]
    generate(tmp_path / "s", count=20)  # samples nothing, so there is nothing to say
    assert "note " not in capsys.readouterr().out


def test_rows_that_are_moved_to_the_rejected_keep_what_they_were_made_with(tmp_path, stopped, generate):
    copies = lambda one: noise(replace(one, seed=7)) if one.index in (0, 2) else noise(one)  # noqa: E731
    folder = stopped(8, 4, copies)
    generate(folder, copies, count=8, batch_size=2, shard_size=4)
    assert indices(folder, "rejected") == [2]
    for split in ("train", "rejected"):
        first = shards.existing(folder, split)[0]
        assert (first.number, [one["batch_size"] for one in first.header.made_with]) == (0, ["4"])


def test_a_stopped_run_is_complete_with_as_many_images_as_are_there(stopped, generate, capsys):
    folder = stopped(12, 8)
    assert generate(folder, count=8, shard_size=4) == 0
    assert "requested 8, written 8" in capsys.readouterr().out
    assert shards.read(folder).counts() == {"apple": 8, "pear": 0}
    # Nothing of it is forgotten when another class begins, and ends.
    generate(folder, count=4, classes=("pear",), shard_size=4)
    assert shards.read(folder).counts() == {"apple": 8, "pear": 4}
    assert generate(folder, count=12, shard_size=4) == 4


def test_a_stopped_class_is_gone_on_with_as_its_message_says(stopped, generate, refused):
    folder = stopped(12, 8)
    with refused("apple has 8 of 12 images", "with --count 8 if they are enough", "then this one"):
        generate(folder, classes=("pear",))
    generate(folder, count=8, shard_size=4)
    generate(folder, classes=("pear",))
    assert shards.read(folder).counts() == {"apple": 8, "pear": 10}


def test_after_too_many_rejected_each_remedy_works(tmp_path, generate, refused):
    draw = lambda one: noise(one) if one.index in (0, 15) or one.index > 30 else FLAT  # noqa: E731
    folder = tmp_path / "s"
    with refused("higher --reject_limit", "apply other --screens to what is there with --rescreen"):
        generate(folder, draw)
    generate(tmp_path / "other", draw, screens=("none",))
    assert len(indices(tmp_path / "other")) == 10
    generate(folder, draw, count=2)  # those that are there
    assert shards.read(folder).counts()["apple"] == 2
    generate(folder, draw, reject_limit=9)
    assert indices(folder) == [0, 15, *range(31, 39)]


def test_a_limit_without_end_is_refused(tmp_path, generate, refused):
    with refused("--reject_limit inf"):
        generate(tmp_path / "s", flat_at(1), reject_limit=float("inf"))


@pytest.mark.parametrize("what", ["cut", "renamed", "exchanged", "manifest", "classes", "rows"])
def test_what_a_message_says_to_delete_is_made_again(tmp_path, generate, what):
    """Delete the file that the message names, run the same command, read the set."""
    folder = tmp_path / "s"
    options = {"count": 8, "shard_size": 4, "classes": ("apple", "pear")}
    generate(folder, **options)
    whole = rows(folder)
    path, manifest = shards.path_of(folder, "apple", 1), folder / shards.MANIFEST
    if what == "cut":
        path.write_bytes(path.read_bytes()[:500])
    elif what == "renamed":
        path.write_bytes(shards.path_of(folder, "pear", 1).read_bytes())
    elif what == "exchanged":
        manifest.unlink()
        path.write_bytes(shards.path_of(folder, "apple", 0).read_bytes())
    elif what == "manifest":
        manifest.write_text("{")
    else:
        told = json.loads(manifest.read_text())
        told["classes"] = ["apple", "plum"] if what == "classes" else told["classes"]
        told["files"][0]["rows"] += what == "rows"
        manifest.write_text(json.dumps(told))
    with pytest.raises(UserError) as refusal:
        generate(folder, **options)
        shards.read(folder)
    message = str(refusal.value)
    assert "delete" in message
    (manifest if "manifest.json: " in message or "delete manifest.json" in message else path).unlink()
    generate(folder, **options)
    assert rows(folder) == whole
    assert shards.read(folder).counts() == {"apple": 8, "pear": 8}


@pytest.mark.parametrize(
    ("wrong", "word", "right"),
    [
        ({"balance": 2}, "a larger number", {"balance": 9}),
        ({"shard_size": 1, "count": 200_000}, "give a larger number", {"shard_size": 2, "count": 200_000}),
        ({"shard_size": 10**6, "base": "mini"}, "give fewer", {"shard_size": 2**19}),
        (
            {"vary": ("light=dim",), "prompt": ("a {label}",)},
            "{{ light }}",
            {"prompt": ("a {label} {{ light }}",)},
        ),
        ({"steps": 1, "image_guidance": True}, "more of either", {"steps": 2}),
        ({"steps": 1, "image_guidance": True}, "more of either", {"strength": 1.0}),
    ],
)
def test_a_plan_that_was_refused_is_made_as_advised(generate, tmp_path, photos, refused, wrong, word, right):
    def options(changes):
        found = {"count": 0, "dry_run": True, **changes}
        if found.get("balance") or found.get("image_guidance"):
            found |= {"data": str(photos), "image_guidance": str(photos) if "image_guidance" in found else ""}
        return found

    with refused(word):
        generate(tmp_path / "s", **options(wrong))
    generate(tmp_path / "s", **options({**wrong, **right}))


@pytest.fixture
def adapters(tmp_path, base, monkeypatch):
    """Adapters of two classes in the usual place."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapters").mkdir()
    return random_loras.trained(tmp_path / "adapters", base, ["apple", "pear"])


def test_the_next_command_samples_what_is_missing(tmp_path, generate, adapters, capsys):
    def next_line(name, output="shards"):
        generate(output, lora=(name,), base="", classes=())
        return capsys.readouterr().out.splitlines()[-1]

    first = next_line("apple.safetensors")
    assert first == "next: python -m generate --lora pear.safetensors --count 10"
    words = shlex.split(first)[4:]
    assert cli.parse(Generate, words, "test").lora == ("pear.safetensors",)
    assert next_line("pear.safetensors").startswith("next: python -m evaluate")
    found = next_line(adapters["pear"], "elsewhere")
    assert found == f"next: python -m generate --lora {adapters['apple']} --count 10 --output elsewhere"
    (tmp_path / "adapters" / "pear.safetensors").unlink()
    trained = next_line("apple.safetensors", "third")
    assert trained.startswith("next: python -m finetune.train_lora --classes pear --base ")


def test_the_template_of_an_adapter_is_blamed_on_it_and_can_be_replaced(tmp_path, base, adapters, refused):
    path = tmp_path / "adapters" / "apple.safetensors"
    random_loras.retold(path, prompt="{label} {{ 9 * 9 }}")
    config = Generate(lora=("apple.safetensors",), precision="fp32")
    with refused("--lora apple.safetensors: its own prompt", "Mul is unsafe", "give a --prompt instead"):
        jobs(config, "fp32")
    assert jobs(replace(config, prompt=("a {label}",)), "fp32")[0].plan.prompts == ("a apple",)


def test_rows_are_written_in_groups_of_bounded_size(tmp_path, generate, monkeypatch):
    from datasets import load_dataset

    monkeypatch.setattr(shards.files, "GROUP", 7000)  # two or three of these images
    generate(tmp_path / "s", shard_size=10)
    path = shards.path_of(tmp_path / "s", "apple", 0)
    sizes = [
        pq.ParquetFile(path).metadata.row_group(i).num_rows
        for i in range(pq.ParquetFile(path).num_row_groups)
    ]
    assert sum(sizes) == 10 and len(sizes) > 2 and max(sizes) <= 3
    assert indices(tmp_path / "s") == list(range(10))
    assert shards.columns(path, "index")["index"].to_pylist() == list(range(10))
    found = load_dataset(str(tmp_path / "s"), cache_dir=str(tmp_path / "cache"))["train"]
    assert [np.asarray(image).std() > 9 for image in found["image"]] == [True] * 10


@pytest.mark.slow
def test_a_shard_of_more_than_two_gigabytes_is_written_and_read(tmp_path, generate):
    generate(tmp_path / "s", count=1)
    (one,) = rows(tmp_path / "s")
    data = one["image"]["bytes"] + bytes(16 * 2**20)  # which packs well
    many = [one | {"index": index, "image": {"bytes": data, "path": "a.png"}} for index in range(140)]
    header = shards.existing(tmp_path / "s")[0].header
    path = shards.path_of(tmp_path / "s", "apple", 0)
    shards.write(path, many, header)
    found = shards.columns(path, "index")["index"].to_pylist()
    assert found == list(range(140)) and sum(len(row["image"]["bytes"]) for row in many) > 2**31
