"""Samples made to do harm: nothing is unpickled, no code of theirs runs, no name becomes markup."""

import json
import os
import pickle
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pictures
import pipelines
import pytest
import runs
import torch
from loras import load
from rich.console import Console

from classify import command as classify
from evaluate import analysis, features
from evaluate.report import Context, render
from finetune import card as adapter_card
from generate import card as set_card
from orchard import adapter, bases, classifiers, pretrained, sources, terminal
from orchard.errors import UserError
from orchard.provenance import Provenance
from orchard.run import file_name

SIGN = "HARMED"
CODE = f"import os, pathlib\npathlib.Path(os.environ[{SIGN!r}]).touch()\n"


class Harm:
    """Leaves a file where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path(os.environ[SIGN]),)


@pytest.fixture
def unharmed(tmp_path, monkeypatch):
    """Fails the test in which a sample had its way."""
    sign = tmp_path / "harmed"
    monkeypatch.setenv(SIGN, str(sign))
    pickle.loads(pickle.dumps(Harm()))
    assert sign.exists(), "the sample does no harm, so it shows nothing"
    sign.unlink()
    yield tmp_path
    assert not sign.exists()


def poisoned(path: Path) -> Path:
    """A pickle, bare or as torch packs it, that harms whoever loads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt":
        torch.save({"lora": Harm()}, path)
    else:
        path.write_bytes(pickle.dumps({"lora": Harm()}))
    return path


@pytest.mark.parametrize("name", ["a.bin", "a.pt", "a.ckpt", "a.safetensors", "a.pkl"])
def test_no_weights_are_unpickled(unharmed, refused, name):
    path = poisoned(unharmed / name)
    with refused(name, "not a safetensors file"):
        adapter.read(path)
    with refused(name):
        bases.resolve(str(path))
    with refused(name):
        classifiers.load(path)
    with refused(name):
        pretrained.load_into(torch.nn.Sequential(torch.nn.Linear(1, 1)), "cnn", str(path))


WEIGHTS = {
    "unet": "diffusion_pytorch_model.bin",
    "vae": "diffusion_pytorch_model.bin",
    "text_encoder": "pytorch_model.bin",
}


@pytest.mark.parametrize("part", WEIGHTS)
def test_a_base_with_pickled_weights_alone_is_refused(unharmed, refused, part):
    folder = pipelines.tiny(unharmed / "base")
    for path in (folder / part).glob("*.safetensors"):
        path.unlink()
    poisoned(folder / part / WEIGHTS[part])
    with refused("no safetensors weights in", part):
        bases.resolve(str(folder))


def test_pickles_beside_whole_weights_and_code_in_a_base_are_left_alone(unharmed, monkeypatch):
    folder = pipelines.tiny(unharmed / "base")
    for part, name in WEIGHTS.items():
        poisoned(folder / part / name)
        (folder / part / "own.py").write_text(CODE)
        config = folder / part / "config.json"
        value = json.loads(config.read_text()) | {"auto_map": {"AutoModel": "own.Model"}}
        config.write_text(json.dumps(value))
    (folder / "pipeline.py").write_text(CODE)
    monkeypatch.chdir(folder / "unet")
    assert load(bases.resolve(str(folder))).unet is not None


@pytest.mark.parametrize("library", ["own", "os", "builtins", ["own"], 5, ""])
def test_a_base_that_names_other_modules_is_refused(unharmed, refused, library, monkeypatch):
    folder = pipelines.tiny(unharmed / "base")
    index = json.loads((folder / "model_index.json").read_text()) | {"unet": [library, "Model"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (unharmed / "own.py").write_text(CODE)
    monkeypatch.syspath_prepend(unharmed)
    with refused("its unet is of", "only components of"):
        bases.resolve(str(folder))


def test_a_backbone_with_code_of_its_own_is_refused(unharmed, refused):
    (unharmed / "net").mkdir()
    (unharmed / "net" / "own.py").write_text(CODE)
    config = {"auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}, "model_type": "own"}
    (unharmed / "net" / "config.json").write_text(json.dumps(config))
    with refused("code of its own"):
        features.of_backbone(str(unharmed / "net"), torch.device("cpu"))


def test_a_data_set_runs_no_script_and_unpacks_nothing(unharmed):
    root = pictures.write(unharmed / "set", ["apple/0.png", "pear/0.png"])
    (root / "set.py").write_text(CODE)
    poisoned(root / "apple" / "data.pkl")
    with zipfile.ZipFile(root / "more.zip", "w") as archive:
        archive.writestr("../../escaped.png", "x")
    assert len(sources.load(str(root))) == 2
    (root / "data.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError):
        sources.load(str(root))
    assert not list(unharmed.parent.glob("escaped*"))


NAMES = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; alert(1); '",
    "{{ 7 * 7 }}{% raw %}",
    "</style></title><svg/onload=alert(1)>",
    "a & b",
)


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def tags(text: str) -> Tags:
    found = Tags()
    found.feed(text)
    return found


def report(classes: tuple[str, ...], word: str) -> str:
    """A page with everything that a stranger can name."""
    names = [f"test/{word}/{i}.png" for i in range(6)]
    more = {"classes": classes, "files": names}
    found = [runs.run(runs.wrong_at(6, 1), ratio=ratio, **more) for ratio in (1.0, 0.5)]
    image = {"src": "data:image/png;base64,AA==", "note": word}
    context = Context(
        title=word,
        commands=[f"python {word}"],
        notes=[word],
        generator=[word],
        shown=word,
        configuration={"data": word, word: [word]},
        versions={word: word},
        hashes={word: "0"},
        sheets=[
            {"name": word, "real": [image], "kept": [image], "rejected": [image], "reasons": {word: 1}},
        ],
        pictures={names[1]: {"image": image, "real": {**image, "similarity": 0.5}}},
        provenance={"arguments": {word: {"prompt": word}}},
    )
    return render(found, analysis.analyse(found, 2.0, {}), context)


@pytest.mark.parametrize("word", [NAMES[0], "".join(NAMES)], ids=["script", "all"])
def test_no_name_becomes_markup_of_the_report(word):
    plain, hostile = report(("a", "b", "c"), "w"), report((word, "b", "c"), word)
    found, known = tags(hostile), tags(plain)
    assert found.tags == known.tags
    assert found.attributes == known.attributes
    assert "49" not in re.findall(r"<h\d>([^<]*)</h\d>", hostile)
    assert "default-src 'none'" in hostile


MARKDOWN = (
    *NAMES,
    "`</code><script>x</script>`",
    "[x](javascript:alert(1))",
    "a\n---\n# b",
    "a | b",
    '"); evil("',
)


@pytest.mark.parametrize("word", MARKDOWN)
def test_no_name_becomes_markup_of_a_card(tmp_path, word):
    found = Provenance(
        base=word,
        base_digest="0",
        family="sd",
        resolution=64,
        classes=[word],
        all_classes=[word],
        prompt=f"a {word} {{label}}",
        rank=1,
        alpha=1.0,
        steps=1,
        seed=0,
        losses={},
        trained_on=[],
        data=word,
        targets=[word],
    )
    path = tmp_path / f"{file_name(word)}.safetensors"
    pictures.write(tmp_path, [f"{path.stem}-samples.png", f"{path.stem}-loss.png"])
    text = adapter_card.render([(path, found)])
    _, _, body = text.removeprefix("---\n").partition("\n---\n")
    assert "\n---\n" not in body
    prose = re.sub(r"(?s)```python\n.*?\n```|(`+) ?.*?[^`]\1(?!`)|^    .*$", "", body, flags=re.M)
    assert not re.search(r"<(?!!)[a-z/]", prose), prose
    assert "](javascript" not in prose
    code = re.search(r"(?s)```python\n(.*?)\n```", body)
    assert code
    compile(code[1], "card", "exec")
    assert code[1].count("\n") == 4
    arguments = {"lora": "", "base": word, "base_digest": "0", "prompt": word}
    manifest = {
        "arguments": {word: arguments},
        "rows": {word: 1},
        "rejected": {},
        "files": [],
        "trained_on": [],
        "rejected_files": [],
        "screened_with": {},
    }
    body = set_card.render(manifest).removeprefix("---\n").partition("\n---\n")[2].partition("```json")[0]
    assert not re.search(r"<(?!!)[a-z/]", body.replace("`", ""))
    assert "](javascript" not in body


@pytest.mark.parametrize("word", ["[/x]", "[red]", "[link=http://x]y[/link]", "a\x1b[2Jb"])
def test_no_name_becomes_markup_of_the_terminal(capsys, word):
    from types import SimpleNamespace

    rows = {word: {"images": 1, "right": 1, "recall": 1.0}}
    scores = {"classes": rows, "images": 1, "right": 1, "accuracy": 1.0}
    fitted = SimpleNamespace(validation_accuracy=None)
    config = SimpleNamespace(output=Path("out"), test="fruit")
    classify.show_scores(terminal.Terminal(), config, fitted, scores)
    assert word.partition("\x1b")[0] in capsys.readouterr().out
    assert str(UserError(f"class {word}")).isprintable()


def test_a_bar_on_a_terminal_reads_no_markup(monkeypatch, tmp_path):
    with (tmp_path / "out").open("w") as file:
        console = Console(file=file, force_terminal=True, markup=True)
        monkeypatch.setattr(terminal, "Terminal", lambda **_: console)
        with terminal.bar("class [/x]", 2, unit="images") as advance:
            advance(2, "file [/y]")
    assert "[/y]" in (tmp_path / "out").read_text()


@pytest.mark.parametrize("label", ["../../x", "/etc/x", "..", ".", "x\0y", "é" * 300, "a" * 400, "con/../x"])
def test_a_class_name_is_a_file_of_its_folder(tmp_path, label):
    name = file_name(label)
    (tmp_path / f"train-{name}-00000.parquet.{'0' * 32}.part").touch()
    assert Path(name).name == name
    assert not name.startswith(".")
    assert file_name(label + "x") != name or len(label) < 3
