"""Image folders: which files count, and what their places and names say about label and split."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from orchard.datasets import sidecars
from orchard.datasets.annotations import FOLDERS, Annotations
from orchard.datasets.sidecars import Listing
from orchard.errors import UserError, listed
from orchard.files import checked_json, size_limits
from orchard.files.atomic import whole_file
from orchard.images import boxes, splits
from orchard.images.images import TRAIN, ImageSet, Photo, sha256

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".ppm"))
SILENT_SUFFIXES = frozenset((".xml", ".txt", ".md", ".zip", ".npz"))
LEFTOVERS = frozenset(("thumbs.db", "desktop.ini", "__macosx"))
SILENT_LEFTOVERS = frozenset((".ds_store", "thumbs.db", "desktop.ini"))
"""What desktops leave in any folder, and never an image: not worth a line."""
# A number, and perhaps the one that a desktop gives to copies: apple_1, apple (2), apple_1 (2).
NUMBERED = re.compile(r"^(?P<label>.*?[^\d\s_()-].*?)[ _-]*(?:\d+|\(\d+\))(?: ?\(\d+\))?$")
MANY_CLASSES = "mixed"


def read(root: Path, also: Sequence[str] = (), name: str | None = None) -> ImageSet:
    """The image set under ``root``.

    Labels are the class folders (below an optional ``train`` and ``test``), else a metadata file's
    label column, else the file names up to their number, as in the Kaggle layout; there ``mixed``
    stays out unless ``also`` has it.
    """
    everything = list(_walk(root))
    files, folders, ignored = _files(root, everything)
    if not files:
        raise UserError(
            f"no images found; expected {root}/CLASS/*.jpg (or .png, .webp, …) "
            f"or files named CLASS_NUMBER.jpg ({_passed_over(ignored)})".removesuffix(" ()")
        )
    listing = sidecars.read(root, files, everything)
    annotations = Annotations(root, files, everything)
    photos = _photos(root, files, listing, annotations, also)
    if not photos:
        raise UserError(f"no image of a single class found, only {MANY_CLASSES!r} ones")
    classes = {photo.label for photo in photos} | _empty_classes(files, folders)
    return ImageSet(
        name=name or str(root),
        classes=tuple(sorted(classes)),
        photos=tuple(photos),
        notes=(
            *listing.notes,
            *filter(None, [_passed_over(sorted({*ignored} - listing.sources - annotations.sources))]),
        ),
    )


def _passed_over(ignored: Sequence[str]) -> str:
    return f"ignored {len(ignored)} other files: {listed(ignored)}" if ignored else ""


def _files(
    root: Path, everything: Sequence[Path]
) -> tuple[list[PurePosixPath], list[PurePosixPath], list[str]]:
    """Relative to ``root``: image files, folders, and the names of what was passed over."""
    found, folders, ignored = [], [], []
    for path in everything:
        place = PurePosixPath(path.relative_to(root).as_posix())
        suffix = path.suffix.lower()
        if any("\ud800" <= letter <= "\udfff" for letter in str(place)):
            raise UserError(f"{str(place)!r} is not a name in UTF-8; rename it")
        if path.name.lower() in SILENT_LEFTOVERS:
            continue
        if _is_leftover(path):
            ignored.append(str(place))
        elif path.is_dir():
            folders.append(place)
        elif suffix in SUFFIXES:
            found.append(place)
        elif suffix not in SILENT_SUFFIXES:
            ignored.append(str(place))
    return sorted(found), folders, sorted(ignored)


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Everything below ``folder``; links are followed, except back to where they lie."""
    real = folder.resolve()
    if real in above:
        return
    try:
        inside = list(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); fix or remove it") from None
    for path in inside:
        yield path
        if path.is_dir() and not _is_leftover(path):
            yield from _walk(path, (*above, real))


def _is_leftover(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in LEFTOVERS


def _place(file: PurePosixPath) -> tuple[str | None, tuple[str, ...]]:
    """``train_zip/train/apple/a.jpg`` -> ("train", ("apple",))."""
    split, folders = None, list(file.parts[:-1])
    while folders and splits.canonical(folders[0]):
        split = splits.canonical(folders.pop(0))
    return split, tuple(folders)


def _photos(
    root: Path,
    files: Sequence[PurePosixPath],
    listing: Listing,
    annotations: Annotations,
    also: Sequence[str],
) -> list[Photo]:
    places = [_place(file) for file in files]
    in_folders = any(folders for _, folders in places)
    in_splits = any(split for split, _ in places)
    photos = []
    for file, (split, folders) in zip(files, places, strict=True):
        if in_splits and not split:
            raise UserError(f"{file} lies beside the train and test folders; move it into one or remove it")
        if in_folders and not folders:
            raise UserError(
                f"{file} lies outside the class folders; move it into one or remove it "
                "(a folder called train, test or val is a split, never a class)"
            )
        label = _label(root, file, folders, listing)
        if not in_folders and label == MANY_CLASSES and label not in also:
            continue
        read = partial(file_bytes, root / file)
        photos.append(
            Photo(
                path=str(file),
                label=label,
                split=split or "",
                sha256=sha256(read()),
                read=read,
                text=listing.texts.get(str(file)),
                annotations=annotations.of(file),
            )
        )
    return photos


def file_bytes(path: Path) -> bytes:
    """The bytes of an image's file; `UserError` for what is none, or is too large."""
    try:
        if path.is_file():
            return checked_json.read_bytes(path, size_limits.IMAGE_FILE)
        reason = "a broken link" if path.is_symlink() else "not a file"
    except OSError as error:
        reason = str(error.strerror)
    except ValueError as error:
        reason = str(error)
    raise UserError(f"{path} cannot be read ({reason}); fix or remove it")


def _label(root: Path, file: PurePosixPath, folders: Sequence[str], listing: Listing) -> str:
    given = listing.labels.get(str(file))
    if folders:
        if given not in (None, folders[0]):
            raise UserError(
                f"{file} lies in {folders[0]}, but its metadata says {given}; "
                "make them agree or drop the label column"
            )
        return folders[0]
    if given is not None:
        return given
    match = NUMBERED.match(file.stem)
    if match and not listing.labels:
        return match["label"]
    columns = f"no label column in its metadata, found {', '.join(listing.columns)}; "
    raise UserError(
        f"{file} has no label; {columns if listing.columns else ''}put images into "
        "one folder per class, or name them CLASS_NUMBER.jpg"
    )


def _empty_classes(files: Sequence[PurePosixPath], folders: Sequence[PurePosixPath]) -> set[str]:
    """Class folders that hold no image: they count, as classes that are short of images."""
    places = [_place(file) for file in files]
    if not any(names for _, names in places):
        return set()
    expected = TRAIN if any(split for split, _ in places) else None
    inside = (_place(folder / "file") for folder in folders if folder.parts[0] not in FOLDERS)
    return {names[0] for split, names in inside if len(names) == 1 and split == expected}


def describe(images: ImageSet) -> str:
    """One line: name, photos per class and split."""
    parts = []
    for split, count in Counter(photo.split for photo in images.photos).items():
        counts = ", ".join(f"{name} {n}" for name, n in images.of(split).counts().items())
        parts.append(f"{split} {count} ({counts})")
    return f"{images.name}: {'; '.join(parts)}"


def write(folder: Path, train: ImageSet, test: ImageSet) -> None:
    """Write the photos' files as ``train/CLASS`` and ``test/CLASS``, named by their hashes.

    Captions and boxes stand beside them.

    Raises:
        UserError: a class name that cannot be a folder's.
    """
    for name in train.classes:
        if "/" in name or name.startswith(".") or splits.canonical(name):
            raise UserError(f"class {name!r} cannot be a folder's name; rename it")
    for split, images in (("train", train), ("test", test)):
        for photo in images.photos:
            _write(folder / split / photo.label, photo)


def _write(folder: Path, photo: Photo) -> None:
    path = folder / f"{photo.sha256[:16]}{Path(photo.path).suffix or '.png'}"
    with whole_file(path) as aside:
        aside.write_bytes(photo.read())
    if photo.text:
        with whole_file(path.with_suffix(".txt")) as aside:
            aside.write_text(photo.text, encoding="utf-8")
    if found := photo.boxes():
        with whole_file(path.with_suffix(".xml")) as aside:
            aside.write_bytes(boxes.as_voc(found, photo.image().size))
