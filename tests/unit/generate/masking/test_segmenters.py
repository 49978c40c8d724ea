"""Segmenters of transformers with small random weights: loaded from disk, asked for masks, or refused."""

import numpy as np
import pictures
import pytest
import torch
import transformers
from PIL import Image
from pipelines import END, START, tokenizer

from generate.masking import masks, segmenters
from orchard.datasets import folders

SIZE = (48, 32)
XML = (
    "<annotation><object><bndbox><xmin>13</xmin><ymin>9</ymin><xmax>30</xmax><ymax>24</ymax></bndbox>"
    "</object></annotation>"
)


@pytest.fixture
def photo(tmp_path):
    image = pictures.encoded(pictures.noise(0, SIZE))
    pictures.write(tmp_path / "real", {"train/apple/a.png": image, "train/apple/a.xml": XML.encode()})
    (found,) = folders.read(tmp_path / "real").photos
    return found


def clipseg(folder):
    torch.manual_seed(0)
    words = tokenizer()
    text = {
        "vocab_size": len(words),
        "max_position_embeddings": 32,
        "bos_token_id": words.convert_tokens_to_ids(START),
        "eos_token_id": words.convert_tokens_to_ids(END),
    }
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPSegConfig(
        text_config=text | sizes,
        vision_config=sizes | {"image_size": 32, "patch_size": 8},
        projection_dim=16,
        extract_layers=(0, 1),
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    transformers.CLIPSegForImageSegmentation(config).save_pretrained(folder)
    images = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    transformers.CLIPSegProcessor(images, words).save_pretrained(folder)
    return folder


def sam(folder):
    torch.manual_seed(0)
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "output_channels": 16,
            "num_pos_feats": 8,
            "global_attn_indexes": [0],
            "window_size": 2,
            "mlp_dim": 16,
        },
        prompt_encoder_config={
            "hidden_size": 16,
            "image_size": 32,
            "patch_size": 8,
            "mask_input_channels": 4,
        },
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 16,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    )
    transformers.SamModel(config).save_pretrained(folder)
    images = transformers.SamImageProcessor(size={"longest_edge": 32}, pad_size={"height": 32, "width": 32})
    transformers.SamProcessor(images).save_pretrained(folder)
    return folder


MAKERS = {"clipseg": clipseg, "sam": sam}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_segmenter_gives_a_mask_of_the_photos_size(tmp_path, photo, kind):
    source = masks.source(str(MAKERS[kind](tmp_path / "model")), [photo])
    assert source.kind == kind
    mask = source(photo, photo.image())
    assert (mask.mode, mask.size) == ("L", SIZE)
    assert set(np.unique(np.asarray(mask))) <= {0, 255}
    assert np.array_equal(np.asarray(mask), np.asarray(source(photo, photo.image())))


def test_clipseg_is_asked_for_the_class(tmp_path, photo):
    source = segmenters.load(str(clipseg(tmp_path / "model")))
    image = photo.image()
    inputs = source.processor(text=["apple"], images=[image], return_tensors="pt")
    with torch.no_grad():
        sure = source.model(**inputs).logits.reshape(32, 32).sigmoid().numpy()
    wanted = Image.fromarray(sure).resize(SIZE, Image.Resampling.BILINEAR)
    ours = np.asarray(source(photo, image)) > 0
    assert ((np.asarray(wanted) > segmenters.SURE) == ours).mean() > 0.95


def test_sam_needs_a_box(tmp_path, photo):
    source = segmenters.load(str(sam(tmp_path / "model")))
    (tmp_path / "real" / "train" / "apple" / "a.xml").unlink()
    (bare,) = folders.read(tmp_path / "real").photos
    with pytest.raises(masks.NoMaskError, match="no box"):
        source(bare, bare.image())


def test_another_model_is_refused(tmp_path, photo, refused):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}')
    with refused(f"--mask {tmp_path / 'model'}: of type bert", "clipseg, sam, sam2"):
        masks.source(str(tmp_path / "model"), [photo])


def test_a_folder_of_damaged_files_is_refused(tmp_path, photo, refused):
    folder = clipseg(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"x")
    with refused(f"--mask {folder}: cannot be loaded"):
        masks.source(str(folder), [photo])


def test_what_is_not_on_this_machine_is_refused_by_name_when_offline(photo, refused, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with refused("--mask nobody/clipseg: not on this machine, nor to be had from the Hub"):
        masks.source("nobody/clipseg", [photo])
