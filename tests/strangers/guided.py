"""A reader under inputs that atheris grows by what code they reach: beyond what hypothesis finds by chance.

    pip install atheris
    PYTHONPATH=tests/helpers python tests/strangers/guided.py adapter -max_total_time=60

Takes a reader's name, then any option of libFuzzer. It begins with the whole files of the tests beside it,
ends at the first input that is neither read nor refused in one line, and leaves that as ``crash-…`` in the
current folder.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris
import pictures
import yaml

with atheris.instrument_imports(include=["orchard", "generate.config"]):
    import test_strange_adapters
    import test_strange_images
    import test_strange_sets
    import test_strange_texts
    from mutations import works_or_refuses

    from generate.config import Generate
    from orchard import shards
    from orchard.adapters import adapter
    from orchard.cli import cli
    from orchard.datasets import folders
    from orchard.images import boxes, images

Reader = Callable[[bytes, Path], object]


def read_adapter(data: bytes, folder: Path) -> object:
    """A LoRA file."""
    (folder / "a.safetensors").write_bytes(data)
    return adapter.read(folder / "a.safetensors")


def read_image(data: bytes, folder: Path) -> object:
    """A photo."""
    return images.decode(data, "a.png")


def read_recipe(data: bytes, folder: Path) -> object:
    """A YAML file of options."""
    (folder / "r.yaml").write_bytes(data)
    config = cli.parse(Generate, ["--config", str(folder / "r.yaml")], "prog")
    return config.require_valid()


def read_table(data: bytes, folder: Path) -> object:
    """Captions in a table beside two photos."""
    return _listed(folder, "metadata.csv", data)


def read_lines(data: bytes, folder: Path) -> object:
    """Captions in lines of JSON beside two photos."""
    return _listed(folder, "metadata.jsonl", data)


def read_boxes(data: bytes, folder: Path) -> object:
    """VOC annotations."""
    (folder / "a.xml").write_bytes(data)
    return boxes.voc(folder / "a.xml")


def read_coco(data: bytes, folder: Path) -> object:
    """COCO annotations."""
    (folder / "a.json").write_bytes(data)
    return boxes.coco(folder / "a.json")


def read_yolo(data: bytes, folder: Path) -> object:
    """YOLO annotations."""
    (folder / "a.txt").write_bytes(data)
    return boxes.yolo(folder / "a.txt")


def read_manifest(data: bytes, folder: Path) -> object:
    """The manifest of a synthetic set."""
    (folder / "shards" / shards.MANIFEST).write_bytes(data)
    return test_strange_sets.read(folder / "shards")


def read_shard(data: bytes, folder: Path) -> object:
    """A shard whose hash the manifest gives."""
    shards.path_of(folder / "shards", "apple", 0).write_bytes(data)
    return test_strange_sets.read(test_strange_sets.sealed(folder / "shards"))


def _listed(folder: Path, name: str, data: bytes) -> object:
    (folder / "set" / name).write_bytes(data)
    try:
        return folders.read(folder / "set")
    finally:
        (folder / "set" / name).unlink()


def _files_of_a_set() -> tuple[bytes, bytes]:
    """A manifest and a shard."""
    with tempfile.TemporaryDirectory() as place:
        folder = test_strange_sets.write(Path(place))
        return (folder / shards.MANIFEST).read_bytes(), shards.path_of(folder, "apple", 0).read_bytes()


MANIFEST, SHARD = _files_of_a_set()
READERS: dict[str, tuple[Reader, list[bytes]]] = {
    "adapter": (read_adapter, [test_strange_adapters.WHOLE]),
    "image": (read_image, list(test_strange_images.WHOLE.values())),
    "recipe": (read_recipe, [yaml.safe_dump(test_strange_texts.RECIPE).encode()]),
    "table": (read_table, [test_strange_texts.CSV]),
    "lines": (read_lines, ["\n".join(map(json.dumps, test_strange_texts.ROWS)).encode()]),
    "manifest": (read_manifest, [MANIFEST]),
    "shard": (read_shard, [SHARD]),
    "boxes": (read_boxes, [test_strange_texts.XML]),
    "coco": (read_coco, [json.dumps(test_strange_texts.COCO).encode()]),
    "yolo": (read_yolo, [test_strange_texts.YOLO]),
}


def main() -> None:
    """Feed one reader until libFuzzer's limit, or the first defect."""
    if len(sys.argv) < 2 or sys.argv[1] not in READERS:
        raise SystemExit(f"usage: guided.py {'|'.join(READERS)} [-max_total_time=SECONDS] [-OPTION=VALUE]")
    read, whole = READERS[sys.argv[1]]
    with tempfile.TemporaryDirectory() as place:
        folder, corpus = Path(place), Path(place, "corpus")
        corpus.mkdir()
        for number, data in enumerate(whole):
            (corpus / str(number)).write_bytes(data)
        pictures.write(folder / "set", ["a.png", "b.png"])
        (folder / "shards").mkdir()
        test_strange_sets.write(folder / "shards")
        words = [sys.argv[0], "-rss_limit_mb=4096", "-timeout=20", *sys.argv[2:], str(corpus)]
        atheris.Setup(words, lambda data: works_or_refuses(lambda: read(data, folder)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
