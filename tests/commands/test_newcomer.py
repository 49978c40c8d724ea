"""What a newcomer does on the first day: odd names, commands pasted as printed, and the usual mistakes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import loras as random_loras
import pictures
import pipelines
import pytest
from conftest import ROOT
from shell import TRAIN, command

from finetune.config import TrainLora
from finetune.outputs import snippets
from generate.config import Generate
from generate.outputs import finish
from generate.planning import jobs
from orchard import cards, shards
from orchard.bases import bases, prompt_embeds
from orchard.cli import cli
from orchard.files import atomic

ODD = ('class "two" <b>', "Äpfel & Birnen", "-v1.5.")
"""Class names that shells, Markdown, HTML and command lines could take for something else."""


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return pipelines.tiny(tmp_path_factory.mktemp("base"))


def photos(folder: Path) -> Path:
    pictures.write(folder, [f"{name}/IMG {i}.png" for name in ODD for i in range(5)])
    return folder


def proposed(said: str) -> list[str]:
    """The words of the command that the last line names, as a shell reads them."""
    line = said.strip().splitlines()[-1]
    assert line.startswith("next: python -m ")
    return [sys.executable, *shlex.split(line.removeprefix("next: "))[1:]]


@pytest.mark.slow
def test_each_command_ends_with_the_next_one_ready_to_paste(base, tmp_path):
    photos(tmp_path / "my photos")
    options = ("--base", base, "--steps", 1, "--batch_size", 2, "--no_sheets")
    said = command(tmp_path, *TRAIN, "--data", "my photos", *options, ORCHARD_FRUIT="")
    said = command(tmp_path, *proposed(said), "--count", 4, "--steps", 1, ORCHARD_FRUIT="")
    card = (tmp_path / "shards" / "README.md").read_text()
    assert '![class "two" &#60;b&#62;](sheets/class__two___b_.png)' in card
    assert '"Äpfel & Birnen": {' in card
    evaluate = proposed(said)
    assert evaluate[-2:] == ["--data", "my photos"]
    assert "0 real + 12 synthetic images" in command(tmp_path, *evaluate, "--dry_run", ORCHARD_FRUIT="")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (["photos"], "--data photos"),
        (["demo"], "--data demo"),
        (["owner/name"], "--data owner/name"),
        (["fruit"], ""),
        (["elsewhere"], ""),
        (["demo", "photos"], ""),
        (["demo", None], ""),
    ],
)
def test_the_experiment_is_proposed_on_the_photos_of_the_adapters(data, said, tmp_path, monkeypatch):
    """Unless they are another tool's, do not agree, or were trained on a folder that is not here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    planned = [SimpleNamespace(source=SimpleNamespace(data=[name or ""])) for name in data]
    manifest = {"classes": ["apple"], "rows": {"apple": 1}}
    line = finish.next_command(Generate(), manifest, planned)
    assert line == f"python -m evaluate --ratios all {said}".strip()


def test_the_snippet_of_the_docs_samples_from_the_embedded_base(tmp_path):
    lora = random_loras.trained(tmp_path, Path("mini"), ["apple"])["apple"]
    section = (ROOT / "docs" / "train.md").read_text().partition("## The adapter in other tools")[2]
    lines = re.search(r"\n\n((?:    .+\n)+)", section)[1]
    code = re.sub(r"^    ", "", lines, flags=re.M).replace("adapters/apple.safetensors", str(lora))
    code = code.replace("apple.png", str(tmp_path / "apple.png"))
    code = code.replace(").images", ", num_inference_steps=1).images")
    command(ROOT, sys.executable, "-c", code)
    assert (tmp_path / "apple.png").is_file()


def test_a_python_without_the_packages_says_how_to_get_them():
    # -S leaves out site-packages, as any Python does that is not the environment's.
    words = [sys.executable, "-S", "-m", "generate", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .*make install.*source \.venv/bin/activate`\n", done.stderr)


def test_make_install_refuses_an_old_python_before_it_makes_anything(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    old = tmp_path / "old python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    words = ["make", "install", "PYTHON='./old python'"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is not Python 3.11 or newer" in done.stderr.splitlines()[0]
    assert not (tmp_path / ".venv").exists()


def test_make_install_keeps_an_environment_that_is_there(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 0\n")  # new enough, and its pip has nothing to do
    python.chmod(0o755)
    # A make above, as of `make test VENV=elsewhere`, tells those below it what it was told.
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    subprocess.run(["make", "install"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert python.read_text().endswith("exit 0\n")
    assert (tmp_path / ".venv" / ".installed").is_file()


def test_a_misspelt_class_is_answered_with_the_adapters_own(base, tmp_path, refused):
    lora = random_loras.trained(tmp_path, base, ["apple"])["apple"]
    with refused("--classes aple: not among the adapters' classes: apple"):
        jobs.jobs(Generate(lora=(lora,), classes=("aple",)), "fp32")


def test_a_set_on_the_hub_is_told_how_to_be_named(refused):
    with refused("--synthetic mira/fruit: no such folder", "hf://datasets/mira/fruit"):
        shards.read_manifest(Path("mira/fruit"))


def test_a_recipe_of_another_command_is_told_from_a_nested_value(refused):
    with refused("varied_mini.yaml: count: not an option of this command"):
        cli.parse(TrainLora, ["--config", str(ROOT / "recipes" / "varied_mini.yaml")], "train")


def test_a_folder_called_like_a_base_is_not_taken_for_it(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sd15" / "kohya").mkdir(parents=True)
    monkeypatch.setattr(bases, "_download", lambda name, hub_id, *_: Path(hub_id))
    with refused("--base sd15: stable-diffusion-v1-5/model_index.json cannot be read"):
        bases.resolve("sd15")


def test_a_long_prompt_is_warned_of_once_and_by_us(capfd):
    prompt_embeds.cut(bases.resolve("mini"), ["a photo of " + "pear " * 40])
    assert capfd.readouterr() == ("", "")


def test_a_file_name_never_looks_like_an_option():
    assert atomic.file_name("-x") == "x"
    assert atomic.file_name("--") == "_"


def test_a_card_links_to_hub_ids_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cards.is_hub_id("stable-diffusion-v1-5/stable-diffusion-v1-5")
    assert not any(map(cards.is_hub_id, ("mini", "../sd15", "/models/sd15", "my models/sd15", "a/b/c")))
    (tmp_path / "models" / "sd15").mkdir(parents=True)
    assert not cards.is_hub_id("models/sd15")


DIGEST, OWN = "0123456789abcdef", "  # where this base lies on your machine"


@pytest.mark.parametrize(
    ("base", "line"),
    [
        ("mini", "DiffusionPipeline.from_pretrained(EMBEDDED, safety_checker=None)"),
        ("sd15", 'DiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5")'),
        ("my models/sd15", f'DiffusionPipeline.from_pretrained("sd15@{DIGEST[:12]}"){OWN}'),
        (
            "sd15.safetensors",
            f'StableDiffusionPipeline.from_single_file("sd15.safetensors@{DIGEST[:12]}"){OWN}',
        ),
    ],
)
def test_a_card_loads_the_base_as_stock_diffusers_can(base, line):
    origin = SimpleNamespace(
        base=base,
        base_digest=DIGEST,
        family="sd",
        method="lora",
        prompt="{label}",
        classes=["apple"],
        inpaints=False,
        embeddings={},
        options={},
        word=str,
    )
    lines = snippets.markdown(Path("adapters/apple.safetensors"), origin)
    assert f"pipe = {line}\n" in lines
    assert ("from orchard.bases.bases import EMBEDDED" in lines) == (base == "mini")
