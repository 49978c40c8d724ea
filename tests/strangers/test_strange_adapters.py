"""Adapters, classifiers and single-file bases that anybody may have made."""

import dataclasses
import json
import struct
import time
from pathlib import Path

import pipelines
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loras import OUT, QUERY, kohya, matrices
from mutations import changed, damaged, fuzz, works_or_refuses
from safetensors.torch import save, save_file

from orchard.adapters import adapter, attaching
from orchard.adapters.provenance import HEADER, Provenance
from orchard.bases import bases, single_file
from orchard.classifiers import classifier, networks, pretrained

ORIGIN = dataclasses.asdict(
    Provenance(
        base="mini",
        base_digest="0" * 64,
        family="sd",
        resolution=64,
        classes=["apple"],
        all_classes=["apple", "pear"],
        prompt="a photo of {label}",
        rank=4,
        alpha=4.0,
        steps=1,
        seed=0,
        losses={"first": 1.0},
        trained_on=["0" * 64],
        data="set",
    )
)
RECORD = {
    "model": "cnn",
    "classes": ["x", "y"],
    "size": 32,
    "through": None,
    "seed": 0,
    "steps": 1,
    "data": "set",
    "trained_on": ["0" * 64],
    "versions": {},
    "commit": None,
    "schema": 1,
}
WHOLE = save(kohya(matrices(QUERY, OUT), 4.0), metadata={"format": "pt", HEADER: json.dumps(ORIGIN)})
KINDS = ("F32", "F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "C64", "U16", "F4", "X9")


def file_of(header: object, body: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + body


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> bases.Base:
    return bases.resolve(str(pipelines.tiny(tmp_path_factory.mktemp("base"))))


def read(path: Path, data: bytes, base: bases.Base) -> None:
    """All that generate does with a LoRA before it samples."""
    path.write_bytes(data)

    def whole() -> None:
        found = adapter.read(path)
        adapter.require_finite(found)
        adapter.require_fit(found, base)
        attaching.require_matching_layers(found, base)

    works_or_refuses(whole)


@fuzz(150)
@given(data=damaged(WHOLE))
def test_a_damaged_adapter_is_read_or_refused(tmp_path, base, data):
    read(tmp_path / "a.safetensors", data, base)


@fuzz(200)
@given(origin=changed(ORIGIN))
def test_an_adapter_of_strange_provenance_is_read_or_refused(tmp_path, base, origin):
    header = {"format": "pt", HEADER: json.dumps(origin)}
    read(tmp_path / "a.safetensors", save(kohya(matrices(QUERY), 4.0), metadata=header), base)


SHAPES = st.lists(st.sampled_from([0, 1, 2, 4, 32, 2**31, 2**62]), max_size=4)
NAMES = st.sampled_from(
    [
        *(f"lora_unet_{QUERY.replace('.', '_')}.{role}" for role in ("alpha", "lora_down.weight")),
        *(f"unet.{QUERY}.{role}" for role in ("lora_A.weight", "lora_B.weight", "hada_w1_a", "lokr_w1")),
        *("unet.lora_A.weight", ".lora_A.weight", "lora_unet_.alpha", "lora", "text_encoder.lora_B.bias"),
        "lora_unet_input_blocks_" + "9" * 5000 + "_0_x.lora_up.weight",
    ]
)


@st.composite
def headers(draw: st.DrawFn) -> tuple[object, bytes]:
    """Tensors of any type, shape and place, mostly with as many bytes as they say."""
    header: dict[str, object] = {}
    end = 0
    for name in draw(st.lists(NAMES, max_size=4, unique=True)):
        kind, shape = draw(st.sampled_from(KINDS)), draw(SHAPES)
        wide = {"F32": 4, "F64": 8, "I64": 8, "C64": 8, "F16": 2, "BF16": 2, "U16": 2}.get(kind, 1)
        size = wide
        for side in shape:
            size *= side
        size = size if size < 10**5 else draw(st.integers(0, 64))
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    if draw(st.booleans()):
        odd = st.sampled_from([{"a": 1}, [], "x", {HEADER: "{}"}, {"format": "tf"}, {"format": None}])
        header["__metadata__"] = draw(odd)
    fill = draw(st.sampled_from([b"\x00", b"\x7f", b"\xff"]))
    return header, fill * end


@fuzz(200)
@given(parts=headers())
def test_tensors_of_any_type_and_shape_are_read_or_refused(tmp_path, base, parts):
    read(tmp_path / "a.safetensors", file_of(*parts), base)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_no_numbers_are_refused(tmp_path, refused, value, kind):
    tensors = {name: tensor.to(kind) for name, tensor in kohya(matrices(QUERY), None).items()}
    next(iter(tensors.values()))[0, 0] = value
    save_file(tensors, tmp_path / "a.safetensors")
    with refused("1 of 2 tensors hold NaN or infinity"):
        adapter.require_finite(adapter.read(tmp_path / "a.safetensors"))


@pytest.mark.parametrize(
    ("alpha", "words"),
    [(0.0, "do nothing"), (float("nan"), "not one number"), (float("inf"), "not one number")],
)
def test_an_alpha_that_makes_no_sense_is_refused(tmp_path, refused, alpha, words):
    save_file(kohya(matrices(QUERY), alpha), tmp_path / "a.safetensors")
    with refused("a.safetensors", words):
        adapter.read(tmp_path / "a.safetensors")


CONFIG = {
    "peft_type": "LORA",
    "lora_alpha": 4,
    "r": 4,
    "use_rslora": False,
    "alpha_pattern": {"to_q": 2},
    "rank_pattern": {"to_k": 2},
}


@fuzz(150)
@given(config=changed(CONFIG))
def test_a_strange_peft_config_is_read_or_refused(tmp_path, base, config):
    tensors = {f"unet.{QUERY}.{role}.weight": torch.ones(4, 4) for role in ("lora_A", "lora_B")}
    header = {adapter.DIFFUSERS_HEADER: json.dumps(config)}
    read(tmp_path / "a.safetensors", save(tensors, metadata=header), base)


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(.*)*x", "(a|a)*b", "(.)\\1", ".*.*.*.*.*.*.*.*x", "x" * 2000]
)
def test_a_pattern_that_would_take_for_ever_is_refused_at_once(tmp_path, refused, pattern):
    tensors = {f"unet.{'a' * 60}.lora_A.weight": torch.ones(4, 4)}
    config = json.dumps({"lora_alpha": 4, "alpha_pattern": {pattern: 2}})
    save_file(tensors, tmp_path / "a.safetensors", metadata={adapter.DIFFUSERS_HEADER: config})
    started = time.monotonic()
    with refused("too intricate"):
        adapter.read(tmp_path / "a.safetensors")
    assert time.monotonic() - started < 5


def test_a_header_nested_without_end_is_refused(tmp_path, refused):
    metadata = {HEADER: "[" * 10**6}
    save_file(kohya(matrices(QUERY), None), tmp_path / "a.safetensors", metadata=metadata)
    with refused("nested too deeply"):
        adapter.read(tmp_path / "a.safetensors")


@fuzz(120)
@given(record=changed(RECORD))
def test_a_strange_classifier_is_loaded_or_refused(tmp_path, record):
    path = tmp_path / classifier.FILE
    save_file({"x": torch.ones(1)}, path, metadata={classifier.HEADER: json.dumps(record)})
    works_or_refuses(lambda: classifier.load(path))


@fuzz(60)
@given(data=damaged(save({"network.0.weight": torch.ones(2, 2)}, {classifier.HEADER: json.dumps(RECORD)})))
def test_a_damaged_classifier_is_loaded_or_refused(tmp_path, data):
    path = tmp_path / classifier.FILE
    path.write_bytes(data)
    works_or_refuses(lambda: classifier.load(path))
    works_or_refuses(
        lambda: pretrained.load_into(torch.nn.Sequential(torch.nn.Linear(2, 2)), "cnn", str(path))
    )


def test_a_classifier_whose_weights_are_no_numbers_is_refused(tmp_path, refused):
    tensors = networks.build("cnn", 2, 32, 0).state_dict()
    tensors["network.0.weight"] = torch.full_like(tensors["network.0.weight"], torch.nan).contiguous()
    header = {classifier.HEADER: json.dumps(RECORD)}
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / classifier.FILE, metadata=header)
    with refused("NaN or infinity"):
        classifier.load(tmp_path)


SINGLE = ("input_blocks.0.0.weight", "x.attn2.to_k.weight", "joint_blocks", "context_embedder.weight", "")


@fuzz(80)
@given(
    names=st.lists(
        st.sampled_from([f"{single_file.DENOISER}{name}" for name in SINGLE]), max_size=3, unique=True
    ),
    text=st.sampled_from([*single_file.TEXT.values(), "other."]),
    shape=st.lists(st.integers(0, 4), max_size=4),
)
def test_a_strange_single_file_is_told_or_refused(tmp_path, names, text, shape):
    path = tmp_path / "base.safetensors"
    save_file(
        {
            name: torch.ones(shape)
            for name in [*(f"{single_file.DENOISER}{name}" for name in names), f"{text}x"]
        },
        path,
    )
    works_or_refuses(lambda: single_file.read(path))


@pytest.fixture(scope="module")
def configs(tmp_path_factory) -> Path:
    return pipelines.tiny(tmp_path_factory.mktemp("configs"))


PARTS = ("model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json")


@fuzz(120)
@given(data=st.data())
def test_a_base_of_strange_configs_is_told_or_refused(configs, data):
    path = configs / data.draw(st.sampled_from(PARTS))
    whole = path.read_text()
    try:
        path.write_text(json.dumps(data.draw(changed(json.loads(whole)))))
        works_or_refuses(lambda: bases.resolve.__wrapped__(str(configs)))
    finally:
        path.write_text(whole)
