"""Where a real set can come from: its name or path -> `ImageSet`."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchard import shards
from orchard.datasets import demo, folders, sidecars
from orchard.errors import UserError, listed, one_line
from orchard.files import checked_json
from orchard.files.scratch import Kept
from orchard.images import splits
from orchard.images.images import TRAIN, ImageSet, Photo, sha256

KAGGLE = "mbkinaci/fruit-images-for-object-detection"
FRUIT_VARIABLE = "ORCHARD_FRUIT"
SAVED = ("state.json", "dataset_dict.json")
HUB_SECONDS = 4.0


class NoSetError(UserError):
    """No set can be read under a name; the message lacks which option named it, and what to give instead."""


def load(data: str, classes: Sequence[str] = (), *, option: str = "--data") -> ImageSet:
    """The real set that ``option`` names, every photo in its train or test split.

    Raises:
        UserError: nothing readable stands under that name, or a class in ``classes`` is missing.
    """
    choices = f"give a folder of class folders, or {option} demo for a rendered set"
    if not data:
        raise UserError(f"{option} is empty; {choices}")
    try:
        images = _find(data, tuple(classes))
    except NoSetError as error:
        raise UserError(f"{option} {data}: {error}; {choices}") from error
    except UserError as error:
        raise UserError(f"{option} {data}: {error}") from error
    unknown = sorted(set(classes) - set(images.classes))
    if unknown:
        raise UserError(
            f"--classes {' '.join(unknown)}: not in {images.name}, which has {', '.join(images.classes)}"
        )
    return splits.separate(images)


def _find(data: str, classes: tuple[str, ...]) -> ImageSet:
    if data == "demo":
        return demo.render()
    if data == "fruit":
        return folders.read(fruit_folder(), also=classes, name="fruit")
    path = Path(data).expanduser()
    if path.is_dir():
        if shards.is_synthetic(path):
            raise UserError("a synthetic set; name the real one")
        return from_hub(str(path)) if _is_dataset(path) else folders.read(path, also=classes)
    if path.exists():
        raise NoSetError("a file, not a folder of images")
    if data.count("/") == 1 and not data.startswith((".", "/", "~")):
        return from_hub(data)
    raise NoSetError("no such folder")


def fruit_folder() -> Path:
    """The Kaggle set's folder: `ORCHARD_FRUIT`, else a download with kagglehub."""
    named = os.environ.get(FRUIT_VARIABLE)
    if named:
        path = Path(named).expanduser()
        if not path.is_dir():
            raise UserError(f"{FRUIT_VARIABLE}={named}: no such folder; correct it")
        return path
    import kagglehub
    import requests

    try:
        return Path(kagglehub.dataset_download(KAGGLE))
    except Exception as error:  # kagglehub raises whatever its resolvers raise
        cut_off = isinstance(error, requests.ConnectionError | requests.Timeout)
        raise NoSetError(
            f"{FRUIT_VARIABLE} is not set and Kaggle's {KAGGLE} could not be fetched "
            f"({'no connection' if cut_off else one_line(error)})"
        ) from error


def _is_dataset(path: Path) -> bool:
    parquet = (file.relative_to(path) for file in path.glob("**/*.parquet"))
    return _is_saved(path) or any(not file.parts[0].startswith(".") for file in parquet)


def _is_saved(path: Path) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    return any((path / name).is_file() for name in SAVED)


def from_hub(name: str) -> ImageSet:
    """A Hugging Face dataset, saved in a folder or on the Hub, with an image and a label column."""
    photos: dict[str, list[Photo]] = {}
    classes: set[str] = set()
    kept = Kept()
    notes, unread = [], set()
    for split, rows in _open(name).items():
        if split == shards.REJECTED:
            notes.append(f"split {split} is left out")
            continue
        if splits.canonical(split) != split:
            notes.append(f"split {split} counts as {splits.canonical(split) or TRAIN}")
        _require_names(name, rows.features or {})
        columns = _columns(rows.features or {})
        photos[split], names = _photos(name, split, rows, columns, kept)
        classes.update(names)
        unread |= set(rows.features) - set(columns)
    if unread:
        notes.append(f"columns that are not read: {listed(sorted(unread))}")
    if not any(photos.values()):
        raise NoSetError("the dataset has no rows")
    return ImageSet(name=name, classes=tuple(sorted(classes)), photos=_unique(photos), notes=tuple(notes))


def _open(name: str) -> dict[str, Any]:
    """Splits by name."""
    path = Path(name)
    if not path.is_dir():
        _require_on_hub(name)
    import datasets

    if path.is_dir():
        datasets.disable_progress_bars()
    try:
        if _is_saved(path):
            found = datasets.load_from_disk(name)
        else:
            # Streamed, since the cache takes a file of the same name and time for the one that it has read.
            found = datasets.load_dataset(name, **({"streaming": True} if path.is_dir() else {}))
    except Exception as error:  # datasets raises whatever its file systems raise
        raise _unreadable(error) from error
    return found if isinstance(found, dict) else {TRAIN: found}


def _unreadable(error: Exception) -> UserError:
    return NoSetError(f"could not be loaded as a dataset ({one_line(error)})")


def _rows(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each row; streamed ones are read from their files here."""
    try:
        yield from rows
    except Exception as error:  # as above
        raise _unreadable(error) from error


def _require_names(name: str, features: Any) -> None:
    """Raise `UserError` when a Parquet file numbers its classes otherwise than ``features`` say.

    Of a folder of such files `datasets` takes the lists of the first one, and reads all numbers by them.
    """
    folder = Path(name)
    if not folder.is_dir() or _is_saved(folder):
        return
    for path in sorted(folder.glob("**/*.parquet")):
        own = _features_of(path)
        for column, kind in features.items():
            listed, here = getattr(kind, "names", None), getattr(own.get(column), "names", None)
            if listed and here and listed != here:
                raise UserError(
                    f"{path.relative_to(folder)} numbers the classes {', '.join(here)}, other "
                    f"files {', '.join(listed)}; write them anew with one list, or as class folders"
                )


def _features_of(path: Path) -> Mapping[str, Any]:
    import datasets
    import pyarrow
    import pyarrow.parquet as pq

    try:
        return datasets.Features.from_arrow_schema(pq.read_schema(path))
    except (OSError, KeyError, TypeError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); fix or remove it") from None


def _require_on_hub(name: str) -> None:
    """Ask once whether the Hub has the dataset: `load_dataset` would retry for half a minute."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        HfApi().dataset_info(name, timeout=HUB_SECONDS)
    except OfflineModeIsEnabled:
        return  # The user asked for the copy that an earlier download left.
    except (HfHubHTTPError, HFValidationError) as error:
        absent = getattr(getattr(error, "response", None), "status_code", None) in (401, 404)
        reason = "no dataset of that name there, or a private one" if absent else one_line(error)
        raise NoSetError(f"no such folder here, nor on the Hub ({reason})") from error
    except Exception as error:  # the transport's own
        raise NoSetError(
            f"no such folder here, and no connection to the Hub ({one_line(error)}; "
            "HF_HUB_OFFLINE=1 uses an earlier download)"
        ) from error


def _columns(features: Any) -> tuple[str, str, str | None]:
    """The names of the image and the label column, and that of the captions' where there is one."""
    import datasets

    if set(features) >= shards.SYNTHETIC_COLUMNS:
        raise UserError("a synthetic set; name the real one")
    images = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    labels = labels or [key for key in sidecars.LABELS if key in features]
    text = sidecars.column(list(features), sidecars.TEXTS, "the dataset")
    return _one("image", images, features), _one("label", labels, features), text


def _one(kind: str, candidates: list[str], features: Any) -> str:
    if kind in candidates:
        return kind
    if len(candidates) == 1:
        return candidates[0]
    problem = f"several {kind} columns" if candidates else f"no {kind} column"
    found = ", ".join(candidates or features)
    raise UserError(f"{problem}, found {found}; call the one to use {kind!r}")


def _photos(
    name: str, split: str, rows: Any, columns: tuple[str, str, str | None], kept: Kept
) -> tuple[list[Photo], set[str]]:
    """One split's photos and class names; a split may number its classes in an order of its own."""
    import datasets

    image, label, text = columns
    names = getattr(rows.features[label], "names", None)
    rows = rows.select_columns([*filter(None, columns)]).cast_column(image, datasets.Image(decode=False))
    roots = _roots(name)
    photos = []
    for i, row in enumerate(_rows(rows)):
        where = f"row {i} of split {split}"
        data = _bytes(row[image], where, roots)
        photos.append(
            Photo(
                path=Path(row[image]["path"] or "").name,
                label=_label(row[label], names, where),
                split=splits.canonical(split) or TRAIN,
                sha256=sha256(data),
                read=kept.keep(data),
                text=_text(row[text], where) if text else None,
            )
        )
    return photos, set(names or ()) | {photo.label for photo in photos}


def _bytes(cell: dict[str, Any] | None, where: str, roots: Sequence[Path]) -> bytes:
    if cell is None:
        raise UserError(f"{where} has no image; fill it or drop the row")
    if cell["bytes"] is not None:
        return cell["bytes"]
    path = Path(cell["path"] or "")
    try:
        within = any(path.resolve().is_relative_to(root) for root in roots)
    except (OSError, ValueError, RuntimeError):  # a loop of links, or no name for a file at all
        within = False
    if not within:
        raise UserError(f"{where}: {path} lies outside the data set; move the image into it")
    try:
        return folders.file_bytes(path)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _roots(name: str) -> tuple[Path, ...]:
    """Folders that rows may name files in: the set's own, else where the Hub's files are kept."""
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    kept = (HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE)
    return tuple(Path(place).resolve() for place in ([name] if Path(name).is_dir() else kept))


def _text(value: Any, where: str) -> str | None:
    if not isinstance(value, str | None):
        raise UserError(f"{where}: its caption is {checked_json.shown(value)}; write a plain string")
    return value if value and value.strip() else None


def _label(value: Any, names: Sequence[str] | None, where: str) -> str:
    if names and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    if not names and isinstance(value, str | int) and value != "":
        return str(value)
    # -1 is how public test sets say "not told"; as an index it would name the last class.
    raise UserError(f"{where}: {value!r} is not a class; label the row or drop it")


def _unique(photos: dict[str, list[Photo]]) -> tuple[Photo, ...]:
    """All photos under names of their own: predictions are recorded by them."""
    found = Counter(photo.path for split in photos.values() for photo in split)
    return tuple(
        photo
        if photo.path and found[photo.path] == 1
        else replace(photo, path=f"{split}/{i:06d}-{photo.path}".removesuffix("-"))
        for split, rows in photos.items()
        for i, photo in enumerate(rows)
    )
