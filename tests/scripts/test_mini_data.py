"""How the training photos of the embedded base are framed and described."""

import io
import json
from dataclasses import replace

import numpy as np
import pictures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mini import captions, data, export
from mini.traits import Traits, measure, on_colour
from orchard.images.traits import NO, YES

RED, GREY, WHITE = (200, 20, 20), (90, 90, 90), (255, 255, 255)


def letterboxed(background: tuple[int, int, int]) -> dict:
    """A row: 80 x 40 px with a red bar from end to end but for 4 px, on a white canvas of 80 x 64 px."""
    photo = np.full((40, 80, 3), background, np.uint8)
    photo[15:25, 4:76] = RED
    canvas = np.full((64, 80, 3), 255, np.uint8)
    canvas[12:52] = photo
    file = io.BytesIO()
    Image.fromarray(canvas).save(file, "PNG")
    return {"image": {"bytes": file.getvalue()}, "label": 0, "photo_box": [0, 12, 80, 52]}


def table(folder, rows: list[dict]) -> None:
    described = json.dumps({"info": {"features": {"label": {"names": ["bar"]}}}})
    told = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": described})
    pq.write_table(told, folder / "train.parquet")


def plain(pixels: np.ndarray, **arrays: np.ndarray) -> data.Photos:
    """Pictures of which nothing is told."""
    count = len(pixels)
    numbers = {"labels": np.arange(count), "photo": np.arange(count), "weight": np.ones(count)}
    traits = [Traits(plain=False)] * count
    return data.Photos(pixels=pixels, traits=traits, names=tuple("abcdefgh"), **(numbers | arrays))


def test_copies_of_a_set_kept_apart_are_left_out_mirrored_or_not_with_the_photos_other_picture():
    rng = np.random.default_rng(0)
    others = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(4)]
    # Two that are alike say how near two photos may come that are not one.
    others.append(others[3] // 2 + rng.integers(0, 64, (64, 64, 3), dtype=np.uint8))
    own = rng.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    pixels = np.concatenate([own[:2], [others[0], others[1][:, ::-1]], own[2:]])
    photos = plain(pixels, photo=np.array([0, 1, 2, 3, 3, 4]))
    files = [pictures.encoded(Image.fromarray(one)) for one in others]
    found = data.apart(photos, [pictures.photo(str(i), "x", data=file) for i, file in enumerate(files)])
    assert found.photo.tolist() == [0, 1, 4]
    assert np.array_equal(found.pixels, own[[0, 1, 3]])


def test_a_photo_under_two_labels_is_left_out_and_one_that_is_there_twice_stays():
    rng = np.random.default_rng(0)
    smooth = np.repeat(np.repeat(rng.integers(0, 16, (3, 8, 8, 3)) * 16 + 8, 8, 1), 8, 2).astype(np.uint8)
    twice = np.concatenate([smooth, smooth[:1], smooth[1:2]])
    found = data.unambiguous(plain(twice, labels=np.array([0, 1, 2, 3, 1])))
    assert found.photo.tolist() == [1, 2, 4]


def test_photos_come_whole_and_by_their_middle_and_those_on_white_on_a_colour(tmp_path):
    table(tmp_path, [letterboxed(WHITE), letterboxed(GREY)])
    photos = data.load(tmp_path, tmp_path)
    assert (photos.names, photos.labels.tolist(), photos.photo.tolist()) == (("bar",), [0] * 4, [0, 0, 1, 1])
    edges, top = photos.pixels[:, 32, 0], photos.pixels[:, 4, 32]
    assert [tuple(map(int, row)) for row in edges[[0, 2, 3]]] == [WHITE, GREY, RED]
    assert [tuple(map(int, row)) for row in top[[0, 2, 3]]] == [WHITE, WHITE, GREY]
    on_white, on_colour, whole, middle = photos.traits
    assert (on_white.ground, whole.ground, middle.ground) == ("white", "grey", "grey")
    assert tuple(map(int, photos.pixels[1, 4, 32])) == tuple(map(int, edges[1])) != WHITE
    assert tuple(map(int, photos.pixels[1, 32, 32])) == RED
    assert on_colour.ground != "white" and on_colour.colours == on_white.colours == ("red",)
    assert [one.letterboxed for one in photos.traits] == [False, False, True, False]
    again = data.load(tmp_path, tmp_path)
    assert all(np.array_equal(getattr(photos, name), getattr(again, name)) for name in data.ARRAYS)
    assert again.traits == photos.traits


GREEN, BLUE, CREAM = (60, 160, 40), (40, 60, 200), (245, 225, 180)


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (
            pictures.disc(WHITE, (40, 40, 36, RED)),
            {
                "plain": True,
                "ground": "white",
                "colours": ("red",),
                "single": YES,
                "whole": YES,
                "close": YES,
            },
        ),
        (
            pictures.disc(BLUE, (40, 40, 12, GREEN)),
            {"plain": True, "ground": "blue", "colours": ("green",), "single": YES, "close": NO},
        ),
        (pictures.disc(GREY, (20, 20, 14, RED), (60, 60, 14, GREEN)), {"ground": "grey", "single": NO}),
        (pictures.disc(WHITE, (40, 40, 30, RED), (40, 40, 12, CREAM)), {"whole": NO, "colours": ("red",)}),
    ],
)
def test_what_is_told_of_a_photo_is_what_was_drawn(picture, told):
    found = measure(picture, "apple")
    assert {name: getattr(found, name) for name in told} == told


def test_captions_say_what_was_told():
    told = Traits(plain=True, ground="blue", colours=("green", "red"), single=YES, whole=NO, close=NO)
    assert (
        captions.caption("apple", told) == "a photo of green and red apple, blue background, single, cut, far"
    )
    assert captions.caption("apple", Traits(plain=True, ground="blue"), paper=True, article=True) == (
        "a photo of an apple on blue paper"
    )
    scene = Traits(plain=False, ground="green", colours=("orange",), letterboxed=True)
    assert captions.caption("orange", scene) == "a photo of orange, green scene background, letterboxed"
    assert (
        captions.caption("pear", Traits(plain=False, ground="scene")) == "a photo of pear, scene background"
    )


def test_captions_are_empty_plain_or_tell_each_trait_as_often_as_stated():
    rng = np.random.default_rng(0)
    told = Traits(plain=True, ground="blue", colours=("green",), single=YES, whole=YES, close=YES)
    drawn = [captions.draw("apple", told, rng) for _ in range(20_000)]
    assert abs(drawn.count("") / 20_000 - 0.1) < 0.01
    speaking = 0.9 * 0.7
    for word in ("green", "blue", "single", "whole", "close"):
        assert abs(sum(word in text for text in drawn) / 20_000 - speaking * 0.7) < 0.015, word
    silent = 0.9 * 0.3 + speaking * 0.3**5 * 0.7  # without an article
    assert abs(drawn.count("a photo of apple") / 20_000 - silent) < 0.015


def test_every_word_of_a_caption_is_one_token(tmp_path):
    names = ("apple", "bell pepper")
    words = export.tokenizer(captions.vocabulary(names), tmp_path / "words")
    longest = Traits(plain=True, ground="white", colours=("red", "green"), single=NO, whole=NO, close=NO,
                     letterboxed=True)  # fmt: skip
    text = captions.caption("bell pepper", longest, paper=True, article=True)
    assert len(words(text).input_ids) == len(text.replace(",", " ,").split()) + 2 <= words.model_max_length
    scene = captions.caption("bell pepper", replace(longest, plain=False), article=True)
    assert len(words(scene).input_ids) == len(scene.replace(",", " ,").split()) + 2 <= words.model_max_length


def test_a_drawn_colour_lies_under_the_object_and_shadows_stay():
    photo = pictures.disc(WHITE, (50, 40, 30, (190, 190, 190)), (40, 40, 20, RED))
    found = on_colour(photo, np.array([0, 100, 200], np.uint8))
    assert found[40, 40].tolist() == list(RED)
    assert found[2, 2].tolist() == [0, 100, 200]
    assert np.abs(found[75, 40] - np.array([0, 100 * 190 / 255, 200 * 190 / 255])).max() <= 1
