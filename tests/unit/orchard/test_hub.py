"""Sharing, against a local stand-in of the Hub."""

import io
import json
import sys
from pathlib import Path

import datasets
import hub_server
import loras as random_loras
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from conftest import ROOT
from diffusers import StableDiffusionPipeline
from PIL import Image
from shell import EVALUATE, GENERATE, TRAIN, command, refusal
from stub_sampler import flat_at, noise

from finetune.command import train
from finetune.config import TrainLora
from generate.config import Generate
from orchard import cards, hub, shards
from orchard.adapters import adapter, attaching
from orchard.bases import bases


def small(base: Path, *more: object) -> tuple[object, ...]:
    return (
        *TRAIN,
        "--base",
        base,
        "--classes",
        "apple",
        "--shots",
        4,
        "--steps",
        2,
        "--batch_size",
        2,
        *more,
    )


@pytest.mark.slow
def test_adapters_and_shards_go_up_with_their_cards(base, tmp_path):
    with hub_server.serve() as server:
        said = command(
            tmp_path, *small(base, "--push_to_hub", "fruit-loras", "--private"), **server.environment
        )
        assert f"uploaded to {server.address}/mira/fruit-loras" in said
        sample = ("--lora", "apple.safetensors", "--count", 3, "--steps", 1, "--shard_size", 2)
        command(tmp_path, *GENERATE, *sample, "--push_to_hub", "lab/fruit-synthetic", **server.environment)
        code = "import datasets; print(datasets.load_dataset('lab/fruit-synthetic')['train'].num_rows)"
        cache = {"HF_HOME": str(tmp_path / "hub")}
        said = command(tmp_path, sys.executable, "-c", code, **server.environment, **cache)
    assert said.splitlines()[-1] == "3"
    card = server.files["model", "mira/fruit-loras", "README.md"].decode()
    assert "python -m generate --lora mira/fruit-loras:apple.safetensors" in card
    assert 'load_lora_weights("mira/fruit-loras", weight_name="apple.safetensors")' in card
    assert server.repos == {("model", "mira/fruit-loras"): True, ("dataset", "lab/fruit-synthetic"): False}
    for (kind, _, name), content in server.files.items():
        local = (tmp_path / ("adapters" if kind == "model" else "shards") / name).read_bytes()
        assert str(base.parent).encode() not in content
        if name.endswith(".safetensors"):  # its header names the base without the folder it lies in
            there, here = safetensors.torch.load(content), safetensors.torch.load(local)
            assert there.keys() == here.keys() and all(torch.equal(there[key], here[key]) for key in here)
        elif name == "README.md":  # it tells how to load the set from where it lies now
            assert content.decode().splitlines()[0] == local.decode().splitlines()[0] == "---"
        else:
            assert content == local
    there = {(kind, name) for kind, _, name in server.files}
    assert there == {
        ("model", "README.md"),
        ("model", "apple.safetensors"),
        ("model", "apple-loss.png"),
        ("model", "apple-samples.png"),
        ("dataset", "README.md"),
        ("dataset", "croissant.json"),
        ("dataset", "sheets/apple.png"),
        ("dataset", "data/train-apple-00000.parquet"),
        ("dataset", "data/train-apple-00001.parquet"),
        ("dataset", "manifest.json"),
        *(("dataset", f"ledgers/{path.name}") for path in (tmp_path / "shards" / "ledgers").iterdir()),
    }


def test_what_the_hub_would_refuse_is_refused_before_the_work(base, tmp_path):
    with hub_server.serve() as server:
        line = refusal(tmp_path, *small(base, "--push_to_hub", "other/x"), **server.environment)
        assert "mira may write to mira, lab only" in line
        line = refusal(tmp_path, *small(base, "--push_to_hub", "a b"), **server.environment)
        assert "not a name for a model" in line
        environment = server.environment | {"HF_TOKEN": "hf_wrong"}
        line = refusal(tmp_path, *small(base, "--push_to_hub", "x"), **environment)
        assert "did not accept the token" in line


def test_a_token_that_may_only_read_is_refused(monkeypatch, refused):
    monkeypatch.setattr("huggingface_hub.HfApi.whoami", lambda self: whoami("read"))
    with refused("may only read", "HF_TOKEN"):
        hub.check("x", "model")


def whoami(role: str) -> dict:
    return {"name": "mira", "orgs": [], "auth": {"accessToken": {"role": role}}}


def test_a_bare_name_is_the_users(monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.whoami", lambda self: whoami("write"))
    assert hub.check("fruit", "model") == "mira/fruit"


@pytest.mark.slow
def test_the_local_copy_stays_when_the_upload_fails(base, tmp_path):
    with hub_server.serve(broken=True) as server:
        said = command(tmp_path, *small(base, "--push_to_hub", "x"), code=2, **server.environment)
    assert "upload failed" in said and "everything is kept in adapters" in said
    assert (tmp_path / "adapters" / "apple.safetensors").is_file()
    # The same command with --resume has nothing left to train and uploads what is there.
    with hub_server.serve() as server:
        command(tmp_path, *small(base, "--push_to_hub", "x", "--resume", "latest"), **server.environment)
    assert ("model", "mira/x", "apple.safetensors") in server.files


def test_the_card_says_what_was_seen_and_how_to_load(base, tmp_path):
    command(tmp_path, *small(base))
    card = (tmp_path / "adapters" / "README.md").read_text()
    assert card.startswith("---\n")
    assert "library_name: diffusers" in card and "text: a photo of apple" in card
    assert "| apple.safetensors | apple | 4 |" in card
    assert 'load_lora_weights("apple.safetensors")' in card
    assert json.dumps(str(ROOT)) not in card
    # The Hub refuses a card that links to a folder of ours.
    assert "base_model" not in card


def test_an_adapter_is_fetched_from_the_hub_once_and_then_sampled(base, tmp_path):
    file = random_loras.trained(tmp_path, base, ["apple"])["apple"]
    sample = (*GENERATE, "--count", 1, "--steps", 1, "--precision", "fp32")
    cache = {"HF_HOME": str(tmp_path / "cache")}
    with hub_server.serve() as server:
        server.files["model", "mira/one", "apple.safetensors"] = Path(file).read_bytes()
        here = server.environment | cache
        command(tmp_path, *sample, "--lora", "mira/one", "--output", "a", **here)
        server.files["model", "mira/two", "apple.safetensors"] = Path(file).read_bytes()
        server.files["model", "mira/two", "pear.safetensors"] = b""
        line = command(tmp_path, *sample, "--lora", "mira/two", code=2, **here).strip().splitlines()[-1]
        assert "mira/two: has apple.safetensors, pear.safetensors; name one as mira/two:FILE" in line
        line = command(tmp_path, *sample, "--lora", "mira/none", code=2, **here).strip().splitlines()[-1]
        assert line.startswith("error: --lora mira/none: no such file here, nor could the Hub be asked")
    # With the file named, the cache will do.
    offline = cache | {"HF_HUB_OFFLINE": "1"}
    command(tmp_path, *sample, "--lora", "mira/one:apple.safetensors:0.5", "--output", "b", **offline)
    first, second = (shards.rows_of(shards.path_of(tmp_path / name, "apple", 0)) for name in ("a", "b"))
    assert first[0]["lora"] == second[0]["lora"] == adapter.read(Path(file)).digest
    assert first[0]["image"] != second[0]["image"]


def test_a_base_of_fp16_shards_alone_is_fetched_as_it_lies_there(base, tmp_path):
    local = tmp_path / "half"
    pipe = StableDiffusionPipeline.from_pretrained(base, torch_dtype=torch.float16, safety_checker=None)
    pipe.save_pretrained(local, variant="fp16", max_shard_size="100KB")
    assert len(list((local / "unet").glob("*.fp16-0000*-of-*.safetensors"))) > 1
    sample = (*GENERATE, "--classes", "apple", "--count", 1, "--steps", 1, "--precision", "fp32")
    with hub_server.serve() as server:
        server.repos["model", "mira/half"] = False
        for path in filter(Path.is_file, local.rglob("*")):
            server.files["model", "mira/half", path.relative_to(local).as_posix()] = path.read_bytes()
        here = server.environment | {"HF_HOME": str(tmp_path / "cache")}
        said = command(tmp_path, *sample, "--base", "mira/half", "--output", "a", **here)
    assert "mira/half (weights in fp16)" in said
    command(tmp_path, *sample, "--base", local, "--output", "b")
    first, second = (shards.rows_of(shards.path_of(tmp_path / name, "apple", 0)) for name in ("a", "b"))
    pixels = [Image.open(io.BytesIO(rows[0]["image"]["bytes"])).tobytes() for rows in (first, second)]
    assert pixels[0] == pixels[1]


@pytest.mark.parametrize("there", [True, False])
def test_the_config_that_peft_keeps_beside_an_adapter_comes_with_it(tmp_path, monkeypatch, there):
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    def fetch(repo, name):
        if name.endswith(".json") and not there:
            raise EntryNotFoundError("404")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(repo)
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    path = hub.weights("mira/tuned", "unet/adapter_model.safetensors")
    assert path == tmp_path / "unet" / "adapter_model.safetensors"
    assert (tmp_path / "unet" / "adapter_config.json").exists() == there


@pytest.mark.slow
def test_a_set_is_written_into_a_repository_gone_on_with_and_read_there(base, tmp_path):
    url = "hf://datasets/mira/fruit"
    sample = ("--base", base, "--classes", "apple", "banana", "orange", "--steps", 1, "--shard_size", 2)
    with hub_server.serve() as server:
        server.repos["dataset", "mira/fruit"] = False
        command(tmp_path, *GENERATE, *sample, "--count", 2, "--output", url, **server.environment)
        command(tmp_path, *GENERATE, *sample, "--count", 3, "--output", url, **server.environment)
        words = ("--ratios", 1, 0, "--total", 9, "--seeds", 1, "--steps", 2, "--synthetic", url)
        said = command(tmp_path, *EVALUATE, *words, **server.environment)
        line = refusal(
            tmp_path, *GENERATE, *sample, "--output", "hf://datasets/mira/none", **server.environment
        )
    assert "0% real, 9 images: 0 real + 9 synthetic images" in said
    assert "hf://datasets/mira/none: cannot be reached" in line
    command(tmp_path, *GENERATE, *sample, "--count", 3, "--output", "local")
    local = {
        str(p.relative_to(tmp_path / "local")): p for p in (tmp_path / "local").rglob("*") if p.is_file()
    }
    assert {name for _, _, name in server.files} == set(local)
    for name in (name for name in local if name.endswith(".parquet")):
        there = pq.read_table(io.BytesIO(server.files["dataset", "mira/fruit", name]))
        assert there.to_pylist() == shards.rows_of(local[name])


@pytest.fixture
def server(monkeypatch):
    """A stand-in of the Hub that commands in this process talk to."""
    with hub_server.serve() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        yield server


def there(server: hub_server.Hub, kind: str) -> dict[str, bytes]:
    return {name: content for (of, _, name), content in server.files.items() if of == kind}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def stored(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


def loaded(content: dict[str, bytes], folder: Path) -> dict[str, int]:
    """Rows a split, as `datasets` finds them in a download of the repository."""
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    found = datasets.load_dataset(str(folder), cache_dir=str(folder / ".cache"))
    return {split: rows.num_rows for split, rows in found.items()}


def test_two_pushes_leave_what_the_second_folder_holds(tmp_path, server, generate, capsys):
    screens = ("flat", "memorised")
    generate(tmp_path / "first", noise, count=12, shard_size=4, screens=screens, push_to_hub="set")
    first = there(server, "dataset")
    assert first == stored(tmp_path / "first")
    assert sum(name.startswith("ledgers/") for name in first) == 1
    assert {"data/train-apple-00002.parquet", "croissant.json"} < first.keys()
    # What somebody has added by hand is not ours to delete.
    server.files |= {("dataset", "mira/set", name): b"x" for name in (".gitattributes", "LICENSE")}
    capsys.readouterr()
    generate(tmp_path / "second", noise, count=4, shard_size=4, push_to_hub="set")
    second = there(server, "dataset")
    mine = {".gitattributes": b"x", "LICENSE": b"x"}
    assert second == stored(tmp_path / "second") | mine
    assert json.loads(second["manifest.json"])["rows"] == {"apple": 4}
    assert loaded(second, tmp_path / "download") == {"train": 4}
    said = capsys.readouterr().out
    assert "deleted there: data/train-apple-00001.parquet, data/train" in said


def test_rejected_images_are_published_only_where_that_was_asked_for(tmp_path, server, generate, refused):
    draw = flat_at(3)
    generate(tmp_path / "s", draw, count=8, push_to_hub="set", push_rejected=True)
    assert there(server, "dataset").keys() == files(tmp_path / "s")
    assert loaded(there(server, "dataset"), tmp_path / "both") == {"train": 8, "rejected": 1}
    # What an earlier push has published goes too.
    generate(tmp_path / "s", draw, count=8, push_to_hub="set")
    found = there(server, "dataset")
    away = {name for name in files(tmp_path / "s") if "rejected" in name}
    assert away == {"data/rejected-apple-00000.parquet", "sheets/rejected/apple.png"}
    assert found.keys() == files(tmp_path / "s") - away
    assert loaded(found, tmp_path / "one") == {"train": 8}
    card = found["README.md"].decode()
    assert "split `rejected`" not in card and "data/rejected" not in card and "is not published" in card
    assert shards.read(tmp_path / "one").counts() == {"apple": 8, "pear": 0}
    with refused("--push_rejected: goes with --push_to_hub"):
        Generate(push_rejected=True).require_valid()


def test_no_path_of_this_machine_is_published_with_a_set(tmp_path, server, generate, base):
    generate(tmp_path / "s", noise, push_to_hub="set")
    name = f"{base.name}@{bases.resolve(str(base)).digest[:12]}"
    for path, content in there(server, "dataset").items():
        rows = pq.read_table(io.BytesIO(content)) if path.endswith(".parquet") else None
        if rows is not None:
            assert set(rows["base"].to_pylist()) == {name}
            content = repr([rows.to_pylist(), rows.schema.metadata]).encode()
            assert name.encode() in rows["image"][0].as_py()["bytes"]
        assert str(base.parent).encode() not in content and str(tmp_path).encode() not in content, path
    assert name in there(server, "dataset")["README.md"].decode()


def test_a_set_that_named_the_path_of_its_base_is_gone_on_with(tmp_path, generate, base):
    generate(tmp_path / "s", noise, count=4)
    path = shards.path_of(tmp_path / "s", "apple", 0)
    (shard,) = shards.existing(tmp_path / "s")
    there = shards.rows_of(path)
    old = {**shard.header.__dict__, "arguments": {**shard.header.arguments, "base": str(base)}}
    shards.write(path, there, shards.ShardHeader(**old))
    (tmp_path / "s" / shards.MANIFEST).unlink()
    assert generate(tmp_path / "s", noise, count=8) == 4


def test_a_set_that_names_the_path_of_its_base_is_not_published(tmp_path, server, generate, base, refused):
    generate(tmp_path / "s", noise, count=4)
    path = shards.path_of(tmp_path / "s", "apple", 0)
    (shard,) = shards.existing(tmp_path / "s")
    rows = shards.rows_of(path)
    (tmp_path / "s" / shards.MANIFEST).unlink()
    # A shard of an older version that a newer one has added to: its header names no path any more.
    shards.write(path, [{**rows[0], "base": str(base)}, *rows[1:]], shard.header)
    with refused("--push_to_hub set", "train-apple-00000.parquet", str(base), "into another --output"):
        generate(tmp_path / "s", noise, count=4, push_to_hub="set")
    assert not server.files


def test_adapters_that_are_gone_from_the_folder_go_from_the_hub(tmp_path, server, base, photos):
    small = {"steps": 1, "batch_size": 2, "rank": 1, "precision": "fp32", "push_to_hub": "loras"}
    places = {"base": str(base), "data": str(photos), "output": tmp_path / "a", "cache": "none"}
    train(TrainLora(**places, **small, export="kohya"))
    first = there(server, "model")
    tracked = {name for name in files(tmp_path / "a") if not name.startswith("logs")}
    assert first.keys() == tracked and {"apple.safetensors", "kohya/pear.safetensors"} <= tracked
    assert "| pear.safetensors | pear |" in first["README.md"].decode()
    for name in ("pear.safetensors", "kohya/pear.safetensors"):
        (tmp_path / "a" / name).unlink()
    train(TrainLora(**places, **small, export="kohya", classes=("apple",), sheets=False, resume="latest"))
    second = there(server, "model")
    assert second.keys() == {name for name in tracked if "pear" not in name}
    assert "pear" not in second["README.md"].decode()
    for path, content in second.items():
        for place in (base.parent, photos.parent, tmp_path):
            assert str(place).encode() not in content, path
    assert adapter.read(tmp_path / "a" / "apple.safetensors").provenance.base == str(base)


def test_an_adapter_that_was_published_gives_the_same_images(tmp_path, base):
    (path,) = random_loras.trained(tmp_path, base, ["apple"]).values()
    (tmp_path / "aside").mkdir()
    copy = adapter.shareable(Path(path), tmp_path / "aside")
    own, public = adapter.read(Path(path)), adapter.read(copy)
    assert public.provenance.base == f"{base.name}@{own.provenance.base_digest[:12]}"
    assert public.provenance.classes == own.provenance.classes and public.scale == own.scale
    pictures = []
    for one in (own, public):
        pipe = random_loras.load(bases.resolve(str(base)))
        attaching.attach(pipe, one)
        pictures.append(random_loras.picture(pipe))
    assert (pictures[0] == pictures[1]).all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mini", "mini"),
        ("sdxl", "sdxl"),
        ("jane/own-model", "jane/own-model"),
        ("fruit", "fruit@0123456789ab"),
    ],
)
def test_a_base_is_called_by_its_public_name_or_by_its_last_part_and_hash(
    tmp_path, monkeypatch, name, expected
):
    monkeypatch.chdir(tmp_path)
    digest = "0123456789abcdef"
    assert bases.public_name(name, digest) == expected
    assert bases.public_name(expected, digest) == expected
    (tmp_path / "models" / "own").mkdir(parents=True)
    for place in ("models/own", "./models/own", str(tmp_path / "models" / "own"), "models/own/"):
        assert bases.public_name(place, digest) == "own@0123456789ab"
    assert cards.public("/home/jane/photos of fruit") == "photos of fruit"


def test_a_folder_that_is_called_as_its_base_is_published_keeps_its_place_to_itself():
    digest = "0123456789abcdef"
    assert bases.public_name("/home/jane/own@0123456789ab", digest) == "own@0123456789ab"


def test_a_published_name_of_a_base_asks_for_the_folder(refused):
    with refused("--base own@0123456789ab", "it is what an adapter says of a base that was no public one"):
        bases.resolve("own@0123456789ab")
