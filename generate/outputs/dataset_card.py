"""The dataset card: a README.md that tells `datasets` where the splits are and people where it came from."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from generate.outputs import contact_sheets
from generate.outputs.credentials import SIGNED_BY
from generate.planning.repainting import MODES
from generate.screening import choice
from orchard import audits, cards, shards
from orchard.adapters import privacy
from orchard.decisions import HUMAN
from orchard.files.atomic import file_name, whole_file
from orchard.generators.files import NO_SCHEDULER
from orchard.images.thumbnails import FARTHEST

NAME = "README.md"
COLUMNS = {
    "image": "PNG; its XMP says that it is synthetic, with prompt and seed",
    "label": "class, of the whole class list of the real set",
    "prompt": "the text prompt",
    "seed": "seed of the image's noise",
    "attempt": "how many seeds were discarded before this one (flagged, or a single colour)",
    "guide": "SHA-256 of the real training image that it was started from, if any",
    "mask": "how the object in that image was found, where parts of the image were repainted",
    "repainted": "share of the pixels that were repainted",
    "box": "boxes of the objects as left, top, right and bottom in pixels, where they are known",
    "index": "number of the image in its class; numbers that are missing were rejected",
    "steps, guidance, scheduler": "how it was sampled",
    "strength": "share of that image, or of its repainted part, that was replaced",
    "negative_prompt, contrast_prompt": "what guidance led away from; the latter is another class's prompt",
    "lora, base": "SHA-256 of the adapter, and the base model; of a GAN or VAE its own SHA-256 and kind",
    "contrast": "standard deviation of the grey levels, 0 to 127.5",
    "phash": "perceptual hash, 16 hex digits",
    "nearest_train": "distance to the nearest real training image over a copy's; below 1 it is a copy",
    "class_margin": "a classifier's probability of the label less that of its next choice, -1 to 1",
    "feature_distance": "1 - cosine to the nearest real training image of its class, over the distance "
    "within which 95% of these have another one",
    "features": "of the network that the choice compares by, at length 1",
    "clip_score": "cosine of CLIP's embeddings of image and prompt",
}
IN_REJECTED = {
    "reason": "in the split `rejected`: the screen that rejected it, that another candidate was chosen, or "
    "why no seed gave an image; a black one stands for it then",
    "score": "what that screen measured; of candidates what the choice looked at",
}
SCREENS = {
    "flat": "its contrast is below {least}",
    "duplicate": "its perceptual hash is within {bits} of 64 bits of an earlier image of its class",
    "memorised": f"it is nearer to a real training image than {FARTHEST}, and "
    "than 99% of these are to their nearest neighbour",
    "off_class": "a classifier takes it for another class",
    HUMAN: "a person rejected it",
}


def write(folder: Path, manifest: shards.Manifest) -> None:
    """Write ``README.md`` beside the shards."""
    with whole_file(folder / NAME) as aside:
        aside.write_text(text(folder, manifest), encoding="utf-8")


def text(folder: Path, manifest: shards.Manifest, *, rejected: bool = True) -> str:
    """The card with what an audit of this very set found, if there was one; ``rejected`` as in `render`."""
    audited = audits.section(folder, audits.of_set(manifest))
    return "\n".join([render(manifest, rejected=rejected), *audited, ""])


def exported(folder: Path, manifest: shards.Manifest) -> str:
    """What has to go with the images: what they are, how they were made, what an audit found."""
    arguments = manifest["arguments"]
    return "\n".join(
        [
            "# Synthetic images",
            "",
            what(arguments),
            "",
            *_made(manifest),
            *_privacy(arguments),
            *audits.section(folder, audits.of_set(manifest)),
            "",
        ]
    )


def render(manifest: shards.Manifest, *, rejected: bool = True) -> str:
    """Card text: YAML head, samples, counts, how each class was made and screened, what the set is not.

    ``rejected``: whether the rejected images lie there too.
    """
    arguments = manifest["arguments"]
    return "\n".join(
        [
            cards.head(_head(manifest, rejected)),
            "# Synthetic images",
            "",
            what(arguments),
            "",
            *_sheets(manifest),
            *_made(manifest),
            f"The generator has seen {len(manifest['trained_on'])} real images, which its adapters were "
            "trained on or its samples started from. Their SHA-256 hashes are in `manifest.json`: do not "
            "score a classifier trained on this set on any of them.",
            "",
            *_unknown(manifest),
            *_privacy(arguments),
            *_screens(manifest, rejected),
            *_choice(manifest),
            "## Columns",
            "",
            cards.table(["column", "what it holds"], (COLUMNS | (IN_REJECTED if rejected else {})).items()),
            "",
            "Null where a screen was not used, or nothing repainted.",
            "",
            "## Arguments",
            "",
            "```json",
            json.dumps(arguments, indent=2, ensure_ascii=False),
            "```",
            "",
        ]
    )


def _unknown(manifest: shards.Manifest) -> list[str]:
    """Of which classes it is not known what their generator has seen."""
    labels = ", ".join(map(cards.plain, manifest["unknown_ledger"]))
    said = (
        f"It is **not known** what the generator of {labels} has been trained on: those images are not among "
        "these, and no one can tell by them whether a test image was seen."
    )
    return [said, ""] if labels else []


def _privacy(arguments: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the adapters promise to their photos, and what of that a set cannot."""
    lines = [
        f"- {cards.plain(label)}: {cards.plain(privacy.described(promise))}"
        for label, one in arguments.items()
        for promise in one.get("privacy", ())
    ]
    head = [
        "## Differential privacy (experimental)",
        "",
        f"The adapters of these classes were trained so that they hide single photos. {privacy.COVERED} "
        "Images sampled from the weights alone keep it. It does not cover photos that screens compare images "
        "with, that samples started from, or that reviewers saw.",
        "",
    ]
    return [*head, *lines, ""] if lines else []


def what(arguments: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence on where the images come from, by the arguments of each class."""
    if any(len(MODES.get(one.get("repaint", ""), ())) == 1 for one in arguments.values()):
        return (
            "**These images are partly synthetic**: a diffusion model drew parts of photographs anew, "
            "the column `repainted` says how much; the rest is the photograph, whose terms hold for it."
        )
    makers = {
        f"a {one['base'].upper()} (one pass, trained on the real images alone)"
        if _is_one_pass(one)
        else "a diffusion model"
        for one in arguments.values()
    }
    return (
        f"**These images are synthetic**: each was sampled from {' or '.join(sorted(makers))}, none is a "
        "photograph."
    )


def _is_one_pass(arguments: Mapping[str, Any]) -> bool:
    """Whether a GAN or VAE made the class."""
    return bool(arguments.get("scheduler") == NO_SCHEDULER)


def _head(manifest: shards.Manifest, rejected: bool) -> dict[str, Any]:
    splits = {"train": manifest["files"], "rejected": manifest["rejected_files"] if rejected else []}
    one_pass = all(map(_is_one_pass, manifest["arguments"].values()))
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split, there in splits.items() if there]
    return {
        "license": cards.licence(arguments["base"] for arguments in manifest["arguments"].values()),
        "task_categories": ["image-classification"],
        "tags": ["synthetic", *(() if one_pass else ("lora", "stable-diffusion"))],
        "size_categories": [_size(sum(manifest["rows"].values()))],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _sheets(manifest: shards.Manifest) -> list[str]:
    """The first images of every class, as they come."""
    labels = {file_name(label): label for label in manifest["rows"]}
    names = [name for name in manifest.get("sheets", ()) if not contact_sheets.is_of_rejected(name)]
    return [line for name in names for line in (f"![{cards.plain(labels[Path(name).stem])}]({name})", "")]


def _made(manifest: shards.Manifest) -> list[str]:
    """The classes, the bases with their licences, and who signed."""
    columns = ["class", "images", "rejected", "prompt", "base", "adapter"]
    arguments = manifest["arguments"]
    return [cards.table(columns, _classes(manifest)), "", *_bases(arguments), *_signed(arguments)]


def _classes(manifest: shards.Manifest) -> list[list[Any]]:
    return [
        [
            cards.plain(label),
            manifest["rows"][label],
            sum(manifest["rejected"].get(label, {}).values()),
            cards.plain(arguments["prompt"]),
            cards.plain(arguments["base"]),
            " + ".join(digest[:12] for digest in arguments["lora"].split("+")) or "none",
        ]
        for label, arguments in manifest["arguments"].items()
    ]


def _bases(arguments: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Each base with its hash and licence, where there are any."""
    found = {one["base"]: one["base_digest"] for one in arguments.values() if not _is_one_pass(one)}
    if not found:
        return []
    lines = [
        f"{cards.plain(name)} (weights `{digest[:12]}`, {cards.licence([name])})"
        for name, digest in found.items()
    ]
    return [
        f"Adapters are named by the SHA-256 of their file, bases are {', '.join(lines)}. The licence of its "
        "base binds an adapter and its images.",
        "",
    ]


def _signed(arguments: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Who has signed which images."""
    found: dict[str, list[str]] = {}
    for label, one in arguments.items():
        if holder := one.get(SIGNED_BY):
            found.setdefault(holder, []).append(cards.plain(label))
    said = "; ".join(f"{', '.join(labels)} by {cards.plain(holder)}" for holder, labels in found.items())
    return [f"Images carry Content Credentials (C2PA), signed: {said}.", ""] if found else []


def _screens(manifest: shards.Manifest, kept: bool) -> list[str]:
    """What each screen rejects, how much it did, and how many real images it has seen."""
    settings = screens_of(manifest)
    if not settings:
        return []
    rows = [
        [
            name,
            SCREENS[name].format(**values),
            sum(reasons.get(name, 0) for reasons in manifest["rejected"].values()),
            len(manifest["screened_with"].get(name, ())),
        ]
        for name, values in settings.items()
    ]
    columns = ["screen", "rejects an image when", "rejected", "real images it has seen"]
    return [
        "## Screens",
        "",
        f"What a screen rejected is {'in the split `rejected`' if kept else 'not published'}; further images "
        "were sampled instead.",
        "",
        cards.table(columns, rows),
        "",
        *_reviews(manifest.get("reviews", [])),
    ]


def _reviews(reviews: Sequence[shards.Review]) -> list[str]:
    """Who looked through the set, and when."""
    return [
        f"{cards.plain(one['reviewer'])} kept {one['kept']} and rejected {one['rejected']} images by eye, "
        f"{cards.plain(one['first'][:10])} to {cards.plain(one['last'][:10])}.\n"
        for one in reviews
    ]


def screens_of(manifest: shards.Manifest) -> dict[str, dict[str, Any]]:
    """Each screen that judged a class, with its settings; a person's eye has none."""
    found = {
        name: values
        for arguments in manifest["arguments"].values()
        for name, values in arguments.get("screens", {}).items()
    }
    return found | ({HUMAN: {}} if manifest.get("reviews") else {})


def choices(arguments: Mapping[str, Mapping[str, Any]]) -> list[tuple[int, str]]:
    """Numbers of candidates, and the rules by which one of them was kept."""
    found = {
        (one["candidates"], one[choice.KEEP][choice.RULE]) for one in arguments.values() if choice.KEEP in one
    }
    return sorted(found)


def _choice(manifest: shards.Manifest) -> list[str]:
    """By what rule one of several candidates was kept, and how many real images that has seen."""
    rules = choices(manifest["arguments"])
    if not rules:
        return []
    said = "; ".join(f"of {each} candidates {choice.SAID[rule]} (`{rule}`)" for each, rule in rules)
    seen = len(manifest["screened_with"].get(choice.KEEP, ()))
    return ["## Choice", "", f"For each image kept: {said}. The choice has seen {seen} real images.", ""]


def _size(rows: int) -> str:
    """The Hub's size category of a row count."""
    steps = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for limit, name in steps if rows < limit), "1M<n<10M")
