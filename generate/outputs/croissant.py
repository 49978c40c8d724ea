"""`croissant.json`: the set in MLCommons' Croissant 1.1, with its vocabulary for responsible AI (RAI) 1.0.

Everything in it comes from the manifest. Beyond RAI 1.0 it has ``hasSyntheticData``, which conferences ask
for, and provenance in W3C's PROV, as Croissant 1.1 recommends.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from generate.outputs import dataset_card
from generate.screening import choice
from orchard import cards, shards
from orchard.bases import bases
from orchard.files.atomic import write_json
from orchard.shards.files import features

NAME = "croissant.json"
VERSIONS = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
PARQUET = "application/x-parquet"
SHARDS, IMAGES, CLASSES = "shards", "images", "classes"
TERMS = (
    *("annotation", "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "excludes"),
    *("extract", "field", "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray"),
    *("isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "readLines", "recordSet"),
    *("references", "regex", "repeated", "replace", "samplingRate", "sdVersion", "separator", "source"),
    *("subField", "transform", "unArchive", "value"),
)
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "conformsTo": "dct:conformsTo",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{name: {"@id": f"cr:{name}", "@type": "@json"} for name in ("data", "examples")},
    **{name: f"cr:{name}" for name in TERMS},
}
MARKUP = str.maketrans("", "", "*`")
TYPES = {"string": "sc:Text", "int": "sc:Integer", "float": "sc:Float"}
"""Data type by the beginning of Arrow's."""


def write(folder: Path, manifest: shards.Manifest) -> None:
    """Write ``croissant.json`` beside the shards."""
    write_json(folder / NAME, render(manifest))


def render(manifest: shards.Manifest) -> dict[str, Any]:
    """The JSON-LD. Rejected images are no part of what it describes."""
    arguments = manifest["arguments"]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": VERSIONS,
        "name": "synthetic-images",
        "description": f"{_what(manifest)} Images of {_counts(manifest)}.",
        "license": cards.licence(one["base"] for one in arguments.values()),
        "keywords": ["synthetic", *manifest["rows"]],
        **_responsible(manifest),
        "prov:wasDerivedFrom": list(_origins(manifest)),
        "prov:wasGeneratedBy": _activity(manifest),
        "distribution": list(_files(manifest)),
        "recordSet": [_classes(manifest), _images(manifest)],
    }


def _what(manifest: shards.Manifest) -> str:
    return dataset_card.what(manifest["arguments"]).translate(MARKUP)


def _counts(manifest: shards.Manifest) -> str:
    return ", ".join(f"{label} ({manifest['rows'].get(label, 0)})" for label in manifest["classes"])


def _files(manifest: shards.Manifest) -> Iterator[dict[str, Any]]:
    """Each shard with its hash, and the set of them that records are read from."""
    for entry in manifest["files"]:
        name = entry["name"]
        yield {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": name,
            "encodingFormat": PARQUET,
            "sha256": entry["sha256"],
        }
    yield {
        "@type": "cr:FileSet",
        "@id": SHARDS,
        "name": SHARDS,
        "encodingFormat": PARQUET,
        "includes": f"data/{shards.TRAIN}-*.parquet",
    }


def _classes(manifest: shards.Manifest) -> dict[str, Any]:
    number, name = f"{CLASSES}/number", f"{CLASSES}/name"
    return {
        "@type": "cr:RecordSet",
        "@id": CLASSES,
        "name": CLASSES,
        "dataType": "sc:Enumeration",
        "key": {"@id": number},
        "field": [
            {"@type": "cr:Field", "@id": number, "name": number, "dataType": "sc:Integer"},
            {"@type": "cr:Field", "@id": name, "name": name, "dataType": "sc:Text"},
        ],
        "data": [{number: place, name: label} for place, label in enumerate(manifest["classes"])],
    }


def _images(manifest: shards.Manifest) -> dict[str, Any]:
    described = {name: text for names, text in dataset_card.COLUMNS.items() for name in names.split(", ")}
    columns = features(manifest["classes"])
    return {
        "@type": "cr:RecordSet",
        "@id": IMAGES,
        "name": IMAGES,
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{IMAGES}/{name}",
                "name": name,
                "description": text,
                **_typed(name, columns[name]),
            }
            for name, text in described.items()
        ],
    }


def _typed(column: str, feature: Any) -> dict[str, Any]:
    """Type and source of a column by its `datasets` feature."""
    source: dict[str, Any] = {"fileSet": {"@id": SHARDS}, "extract": {"column": column}}
    if column == "image":
        return {"dataType": "sc:ImageObject", "source": source | {"transform": {"jsonPath": "bytes"}}}
    if column == "label":
        number = {"field": {"@id": f"{CLASSES}/number"}}
        return {"dataType": ["sc:Integer", "cr:Label"], "references": number, "source": source}
    depth = 0
    while not hasattr(feature, "dtype"):
        feature, depth = feature.feature, depth + 1
    kind = next(kind for start, kind in TYPES.items() if feature.dtype.startswith(start))
    # The inner lists are boxes.
    shape = {"isArray": True, "arrayShape": "-1" if depth == 1 else "-1,4"} if depth else {}
    return {"dataType": kind, **shape, "source": source}


def _responsible(manifest: shards.Manifest) -> dict[str, Any]:
    arguments = manifest["arguments"]
    seen = len(manifest["trained_on"])
    unknown = ", ".join(manifest["unknown_ledger"])
    sides = ", ".join(sorted({str(one["resolution"]) for one in arguments.values() if "resolution" in one}))
    copies = (
        "images nearer to a real training image than these are to each other were rejected"
        if "memorised" in manifest["screened_with"]
        else "no image was rejected for being near to a real one"
    )
    return {
        "rai:hasSyntheticData": True,
        "rai:dataCollection": f"{_what(manifest)} Each prompt is in its row.",
        "rai:dataCollectionType": ["Others"],
        "rai:dataCollectionRawData": f"{seen} real images, which the generator was trained on or samples "
        "started from; their SHA-256 hashes are in manifest.json under trained_on."
        + (f" What the generator of {unknown} was trained on is not known." if unknown else ""),
        "rai:dataAnnotationProtocol": "The label of an image is the class that its prompt asks for; no "
        "annotator was asked.",
        "rai:dataPreprocessingProtocol": list(_selection(manifest)),
        "rai:dataBiases": [
            "What the base model and the real images show more often than the world does, these images show "
            "more often too; how much was not measured.",
            f"Images per class: {_counts(manifest)}.",
            *(f"The set leans to what was kept: {line}" for line in _choices(arguments)),
        ],
        "rai:dataLimitations": [
            f"Square images of {sides} px. Scores on them say nothing of photographs: test on real ones.",
            "Do not score a classifier trained on this set on images whose hashes are in manifest.json under "
            "trained_on or screened_with.",
            "An image may show something else than its label.",
        ],
        "rai:dataUseCases": ["Training of image classifiers, with real images or instead of them."],
        "rai:dataSocialImpact": "Images that look like photographs can mislead; the metadata of each says "
        "that it is synthetic.",
        "rai:personalSensitiveInformation": [
            f"Not looked for. A generator can repeat what it was trained on; {copies}."
        ],
    }


def _selection(manifest: shards.Manifest) -> Iterator[str]:
    """How images were left out."""
    for name, values in dataset_card.screens_of(manifest).items():
        number = sum(reasons.get(name, 0) for reasons in manifest["rejected"].values())
        rule = dataset_card.SCREENS[name].format(**values)
        yield f"Screen {name}: an image is rejected when {rule}; {number} were."
    yield from _choices(manifest["arguments"])


def _choices(arguments: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """By what rules one of several candidates was kept."""
    return [f"of {each} candidates {choice.SAID[rule]}." for each, rule in dataset_card.choices(arguments)]


def _origins(manifest: shards.Manifest) -> Iterator[dict[str, Any]]:
    """Bases, adapters and real images that it was derived from, each once."""
    found = {}
    for one in manifest["arguments"].values():
        base = bases.HUB.get(one["base"], one["base"])
        place = f"https://huggingface.co/{base}" if cards.is_hub_id(base) else _urn(one["base_digest"])
        found[place] = f"{one['base']}, weights {one['base_digest'][:12]}"
        found |= {_urn(lora): f"adapter {lora[:12]}" for lora in one["lora"].split("+") if lora}
    yield from ({"@type": "prov:Entity", "@id": place, "prov:label": said} for place, said in found.items())
    if manifest["trained_on"]:
        yield {"@type": "prov:Entity", "prov:label": f"{len(manifest['trained_on'])} real images"}


def _urn(digest: str) -> str:
    return f"urn:sha256:{digest}"


def _activity(manifest: shards.Manifest) -> dict[str, Any]:
    found = {
        f"{name} {version}"
        for versions in manifest.get("versions", {}).values()
        for name, version in versions.items()
        if name in ("orchard", "diffusers", "torch")
    }
    agents = [{"@type": "prov:SoftwareAgent", "prov:label": name} for name in sorted(found)]
    return {
        "@type": "prov:Activity",
        "prov:label": "Sampling from a generative model",
        "prov:wasAssociatedWith": agents,
    }
