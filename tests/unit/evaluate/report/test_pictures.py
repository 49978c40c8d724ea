"""Images of the page: sheets, what was rejected, what is nearest; and the features that say what is near."""

import base64
import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from classify.sizes import Sizes
from evaluate.experiment.shown_images import ShownImages
from evaluate.gap.feature_metrics import Gap
from evaluate.gap.measure import gaps
from evaluate.report import pictures
from orchard import shards
from orchard.classifiers.embeddings import of_backbone, of_classifier
from orchard.classifiers.networks import build
from orchard.images.images import ImageSet, Photo, sha256

CPU = torch.device("cpu")
SIZES = Sizes(size=32, through=None)


def png(value, size=(40, 30)):
    noise = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def image_set(label_values, name="set"):
    photos = []
    for label, value in label_values:
        data = png(value)
        read = partial(bytes, data)
        photos.append(
            Photo(path=f"{label}/{value}.png", label=label, split="train", sha256=sha256(data), read=read)
        )
    return ImageSet(name=name, classes=("apple", "pear"), photos=tuple(photos))


def opened(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_sheets_show_the_first_images_of_each_class_and_why_others_were_rejected():
    real, kept = image_set([("apple", i) for i in range(20)]), image_set([("apple", 30), ("pear", 31)])
    away = [{"label": "pear", "note": "duplicate", "src": "data:,x"}]
    apple, pear = pictures.sheets(real, kept, away, {"pear": {"duplicate": 40}})
    assert [len(apple[kind]) for kind in ("real", "kept", "rejected")] == [pictures.SHEET, 1, 0]
    assert [len(pear[kind]) for kind in ("real", "kept", "rejected")] == [0, 1, 1]
    assert apple["real"][0]["note"] == "apple/0.png"
    assert (apple["reasons"], pear["reasons"]) == ({}, {"duplicate": 40})
    assert opened(apple["real"][0]["src"]).size == (40, 30)


def test_of_many_classes_the_first_have_a_sheet():
    names = tuple(f"class {i:03}" for i in range(200))
    real = ImageSet(name="many", classes=names, photos=image_set([("apple", 1)]).photos)
    assert [sheet["name"] for sheet in pictures.sheets(real, real, [], {})] == list(names[: pictures.CLASSES])


def test_rejected_images_are_read_from_their_own_shards(tmp_path):
    images = [{"bytes": png(i), "path": f"{i}.png"} for i in range(30)]
    rows = [{"image": image, "label": 1, "index": i, "reason": "off-class"} for i, image in enumerate(images)]
    header = shards.ShardHeader(
        label="pear", classes=["apple", "pear"], arguments={}, trained_on=[], versions={}, count=30
    )
    kept = [
        {"image": {"bytes": png(40 + i), "path": "k.png"}, "label": 1, "index": 30 + i} for i in range(30)
    ]
    shards.write(shards.path_of(tmp_path, "pear", 0), kept, header)
    assert pictures.rejected(tmp_path, shards.manifest_of(tmp_path)) == []
    shards.write(shards.path_of(tmp_path, "pear", 0, shards.REJECTED), rows, header)
    found = pictures.rejected(tmp_path, shards.manifest_of(tmp_path))
    assert len(found) == pictures.SHEET
    assert (found[0]["label"], found[0]["note"]) == ("pear", "off-class")


def test_nearest_image_of_each_pool_stands_beside_a_mistake():
    tested = image_set([("apple", 1), ("pear", 2)]).photos
    darker = image_set([("pear", 5), ("apple", 1), ("apple", 6)])
    pools = {"real": darker, "synthetic": image_set([])}
    # Image 6 is made equal to image 1 in its pixels, not in its file.
    pixels = {photo.path: SIZES.pixels([photo])[0] for photo in (*tested, *darker.photos)}
    pixels["apple/6.png"] = pixels["apple/1.png"] // 2

    def read(photos):
        return np.stack([pixels[photo.path] for photo in photos])

    found = pictures.beside(["apple/1.png", "gone.png"], tested, pools, pictures.as_they_are, read)
    assert list(found) == ["apple/1.png"]
    assert list(found["apple/1.png"]) == ["image", "real"]
    assert found["apple/1.png"]["real"]["note"] == "apple/6.png"
    assert found["apple/1.png"]["real"]["similarity"] == pytest.approx(1, abs=1e-3)


def test_features_of_a_classifier_are_what_its_last_layer_sees():
    model = build("cnn", 3, 32, seed=0).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    found = of_classifier(model, CPU)(pixels)
    last = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1]
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        assert last(torch.from_numpy(found)) == pytest.approx(model(images), abs=1e-4)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A tiny DINOv2 with random weights, saved as transformers saves it."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=224, patch_size=32
    )
    folder = tmp_path_factory.mktemp("dinov2")
    Dinov2Model(config).save_pretrained(folder)
    return folder


def test_backbone_gives_its_pooled_output_of_enlarged_standardised_images(backbone):
    from transformers import Dinov2Model

    grey = np.full((2, 32, 32, 3), 128, np.uint8)
    found = of_backbone(str(backbone), CPU)(grey)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    value = ((128 / 255 - mean) / deviation).view(1, 3, 1, 1).expand(2, 3, 224, 224)
    with torch.no_grad():
        expected = Dinov2Model.from_pretrained(backbone).eval()(pixel_values=value).pooler_output
    assert found == pytest.approx(expected.numpy(), abs=1e-4)


def test_backbone_that_is_not_on_this_machine_is_never_fetched(refused, tmp_path):
    with refused("--backbone nobody/nothing", "hf download nobody/nothing"):
        of_backbone("nobody/nothing", CPU)
    with refused("--backbone", "cannot be loaded"):
        of_backbone(str(tmp_path), CPU)


def test_gap_is_measured_for_synthetic_images_and_for_the_test_photos_as_yardstick():
    train = image_set([(("apple", "pear")[i % 2], i) for i in range(12)])
    test = image_set([("apple", 100 + i) for i in range(6)])
    shown = ShownImages(real=train, test=test, synthetic=train, folder=None)
    embeds = {"pixels": pictures.as_they_are}

    def read(photos):
        return SIZES.pixels(photos)

    found = gaps(shown, embeds, read)["pixels"]
    assert isinstance(found["synthetic"], Gap)
    assert found["synthetic"].manifold.coverage == 1.0
    assert found["synthetic"].images == 12
    assert found["test"].images == 6
    assert found["test"].discriminator["pear"] is None
    nothing = ShownImages(real=train, test=test, synthetic=train.keep(()), folder=None)
    assert gaps(nothing, embeds, read) == {}
