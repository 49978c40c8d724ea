"""Names made to do harm: none becomes markup of a page, a card or the terminal, none a file elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pictures
import pytest
import runs
from rich.console import Console

from classify import command as classify
from evaluate.analysis import analyse
from evaluate.report.html_page import Context, render
from finetune.outputs import model_card as adapter_card
from generate.outputs import dataset_card as set_card
from orchard.adapters.provenance import Provenance
from orchard.cli import terminal
from orchard.errors import UserError
from orchard.files.atomic import file_name

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
    return render(found, analyse.analyse(found, 2.0, {}), context)


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
def test_no_name_becomes_markup_of_an_adapter_s_card(tmp_path, word):
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


@pytest.mark.parametrize("word", MARKDOWN)
def test_no_name_becomes_markup_of_a_set_s_card(word):
    arguments = {"lora": "", "base": word, "base_digest": "0", "prompt": word}
    manifest = {
        "arguments": {word: arguments},
        "rows": {word: 1},
        "rejected": {},
        "files": [],
        "trained_on": [],
        "rejected_files": [],
        "screened_with": {},
        "unknown_ledger": [word],
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
