"""Candidates: what each rule keeps, that the outcome depends on the plan alone, and what is refused."""

import numpy as np
import pytest
import stub_sampler
import torch
from stub_sampler import ends_within_one_write, flat_at, indices, noise, row, rows, shaded

from generate.config import Generate
from generate.outputs import dataset_card
from generate.planning.jobs import jobs
from generate.screening import choice
from orchard import shards
from orchard.images.images import decode, square
from orchard.images.splits import stable_hash

OPTIONS = {"candidates": 3, "keep": "random", "count": 4}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return stub_sampler.classifier(tmp_path_factory.mktemp("classifier"))


def by_place(folder, each=3):
    """Rows of both splits by their place in the set."""
    found: dict[int, list] = {}
    for one in sorted([*rows(folder), *rows(folder, "rejected")], key=lambda r: r["index"]):
        found.setdefault(one["index"] // each, []).append(one)
    return found


def test_of_every_place_one_is_kept_and_the_others_are_said_not_to_be_chosen(tmp_path, generate, capsys):
    assert generate(tmp_path / "s", **OPTIONS) == 12
    kept = indices(tmp_path / "s")
    assert [index // 3 for index in kept] == [0, 1, 2, 3]
    assert {r["reason"] for r in rows(tmp_path / "s", "rejected")} == {"not chosen"}
    for candidates in by_place(tmp_path / "s").values():
        scores = {r["index"]: r["score"] for r in candidates}
        wanted = {r["index"]: stable_hash("keep", 0, "apple", r["index"]) / 2**63 for r in candidates}
        assert scores == pytest.approx(wanted, abs=1e-6)
        assert [r["index"] for r in candidates if not r["reason"]] == [max(scores, key=scores.get)]
    said = capsys.readouterr().out
    assert "4 images of 12 candidates, 12 to sample" in said and "keep      of 3 candidates one drawn" in said
    assert "requested 4, written 4, flagged 0, rejected 0, not chosen 8" in said
    manifest = shards.read_manifest(tmp_path / "s")
    assert manifest["rows"] == {"apple": 4} and manifest["rejected"] == {"apple": {"not chosen": 8}}
    assert manifest["arguments"]["apple"]["keep"] == {"rule": "random"}
    assert "of 3 candidates one drawn at random" in dataset_card.render(manifest)
    assert generate(tmp_path / "s", **OPTIONS) == 0


def test_candidates_of_a_place_share_prompt_and_guide_and_phrases_stay_even(tmp_path, generate, base, photos):
    options = {**OPTIONS, "vary": ("light=dim", "light=bright"), "image_guidance": str(photos)}
    generate(tmp_path / "s", **options)
    for candidates in by_place(tmp_path / "s").values():
        assert len({(r["prompt"], r["guide"]) for r in candidates}) == 1
        assert len({r["seed"] for r in candidates}) == 3
    found = [r["prompt"] for r in rows(tmp_path / "s")]
    assert sorted(map(found.count, set(found))) == [2, 2]
    assert len({r["guide"] for r in rows(tmp_path / "s")}) == 4
    plan = jobs(Generate(base=str(base), data=str(photos), **options), "fp32")[0].plan
    assert plan.row(4).prompt == plan.row(3).prompt != plan.row(6).prompt


def unlucky(one):
    """All candidates of the second place flat, one of the fourth; the eighth row copies the first one."""
    if one.index == 7:
        return noise(row(0))
    return flat_at(3, 4, 5, 10)(one)


def test_the_outcome_is_the_same_however_the_run_went(tmp_path, generate):
    options = {**OPTIONS, "count": 9, "shard_size": 4}
    generate(tmp_path / "whole", unlucky, **options)
    wanted = {split: rows(tmp_path / "whole", split) for split in ("train", "rejected")}
    assert [index // 3 for index in indices(tmp_path / "whole")] == [0, *range(2, 10)]
    reasons = {r["index"]: r["reason"] for r in wanted["rejected"]}
    assert {reasons[index] for index in (3, 4, 5, 10)} == {"flat"} and reasons[7] == "duplicate"
    for count in (2, 5, 9):
        generate(tmp_path / "grown", unlucky, **{**options, "count": count}, batch_size=5)
        assert rows(tmp_path / "grown") == wanted["train"][:count]
    assert {split: rows(tmp_path / "grown", split) for split in wanted} == wanted
    for name in ("train-apple-00001", "rejected-apple-00002"):
        (tmp_path / "whole" / "data" / f"{name}.parquet").unlink()
        generate(tmp_path / "whole", unlucky, **options)
        assert {split: rows(tmp_path / "whole", split) for split in wanted} == wanted


def test_a_run_that_is_stopped_anywhere_ends_in_the_same_rows(tmp_path, generate, refused):
    """Every write of a file is in turn the last one that a run gets to do."""
    options = {**OPTIONS, "count": 6, "shard_size": 5}
    generate(tmp_path / "whole", unlucky, **options)
    wanted = {split: rows(tmp_path / "whole", split) for split in ("train", "rejected")}
    stops = 0
    while not ends_within_one_write(lambda: generate(tmp_path / "stopped", unlucky, **options)):
        stops += 1
        assert stops < 30
        there = {r["index"] for split in wanted for r in rows(tmp_path / "stopped", split)}
        assert len(there) >= min(stops, 4)
    assert stops > 6
    assert {split: rows(tmp_path / "stopped", split) for split in wanted} == wanted


def test_a_class_that_was_stopped_before_the_choice_is_not_complete(tmp_path, generate, refused):
    def stop(one):
        if one.index == 11:
            raise KeyboardInterrupt
        return noise(one)

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "s", stop, **OPTIONS)
    assert rows(tmp_path / "s") == []
    generate(tmp_path / "s", **{**OPTIONS, "count": 2})
    assert len(indices(tmp_path / "s")) == 3  # every place whose candidates are all there
    generate(tmp_path / "s", **OPTIONS)
    generate(tmp_path / "whole", **OPTIONS)
    assert rows(tmp_path / "s") == rows(tmp_path / "whole")


def test_places_of_which_nothing_is_left_count_for_the_limit(tmp_path, generate, refused):
    draw = flat_at(*range(3, 40))
    with refused("written 1, flagged 0, rejected 21, not chosen 2", "--reject_limit 1", "--rescreen"):
        generate(tmp_path / "s", draw, **OPTIONS)


def test_the_surest_and_the_hardest_are_kept_and_what_the_choice_has_read_is_in_the_ledger(
    tmp_path, generate, classifier
):
    lights = (0, 60, 190)
    draw = lambda one: shaded(one.seed, lights[one.index % 3])  # noqa: E731
    options = {"screen_classifier": classifier / "c", "data": str(classifier / "photos"), "candidates": 3}
    generate(tmp_path / "margin", draw, count=4, keep="margin", **options)
    for candidates in by_place(tmp_path / "margin").values():
        best = max(candidates, key=lambda r: r["class_margin"])
        assert [r["index"] for r in candidates if not r["reason"]] == [best["index"]]
        assert all(r["score"] == r["class_margin"] for r in candidates)
        assert candidates[2]["class_margin"] < 0
    generate(tmp_path / "hard", draw, count=4, keep="hard", **options)
    for candidates in by_place(tmp_path / "hard").values():
        fit = [r for r in candidates if r["class_margin"] >= 0 and r["feature_distance"] <= 1]
        kept = min(fit, key=lambda r: r["class_margin"]) if fit else max(candidates, key=lambda r: r["score"])
        assert [r["index"] for r in candidates if not r["reason"]] == [kept["index"]]
    ledger = shards.ledger(shards.read_manifest(tmp_path / "hard"))
    files = {p: digest(p) for p in (classifier / "photos").rglob("*.png")}
    assert ledger["screen keep"] == {one for path, one in files.items() if "train" in path.parts}


def digest(path):
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    """A tiny DINOv2 and a tiny CLIP with random weights, saved as transformers saves them."""
    import pipelines
    from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("backbones")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(**sizes, image_size=224, patch_size=32)).save_pretrained(folder / "dinov2")
    words = pipelines.tokenizer()
    text = {**sizes, "intermediate_size": 16, "vocab_size": len(words), "max_position_embeddings": 32}
    text |= {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    vision = {**sizes, "intermediate_size": 16, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(folder / "clip")
    words.save_pretrained(folder / "clip")
    statistics = '{"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}'
    (folder / "clip" / "preprocessor_config.json").write_text(statistics)
    return folder


def test_the_nearest_and_the_most_diverse_are_kept_by_the_features_of_a_backbone(
    tmp_path, generate, backbones, photos
):
    options = {"backbone": str(backbones / "dinov2"), "candidates": 3, "count": 4, "data": str(photos)}
    generate(tmp_path / "near", keep="near", **options)
    for candidates in by_place(tmp_path / "near").values():
        nearest = min(candidates, key=lambda r: r["feature_distance"])
        assert [r["index"] for r in candidates if not r["reason"]] == [nearest["index"]]
    generate(tmp_path / "diverse", keep="diverse", **options)
    before: list = []
    for candidates in by_place(tmp_path / "diverse").values():
        features = np.array([r["features"] for r in candidates])
        assert np.linalg.norm(features, axis=1) == pytest.approx(1, abs=1e-5)
        far = [min([1 - one @ other for other in before], default=2) for one in features]
        assert [r["score"] for r in candidates] == pytest.approx(far, abs=1e-5)
        assert not candidates[int(np.argmax(far))]["reason"]
        before.append(features[np.argmax(far)])
    assert shards.read_manifest(tmp_path / "diverse")["screened_with"]["keep"] == []
    assert {r["features"] for r in rows(tmp_path / "near")} == {None}


def test_clip_scores_an_image_with_its_prompt(tmp_path, generate, backbones):
    from torch.nn.functional import interpolate
    from transformers import AutoTokenizer, CLIPModel

    generate(tmp_path / "s", keep="clip", backbone=str(backbones / "clip"), candidates=3, count=2)
    model = CLIPModel.from_pretrained(backbones / "clip").eval()
    tokenizer = AutoTokenizer.from_pretrained(backbones / "clip")
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.48, 0.46, 0.41], [0.27, 0.26, 0.28]))
    for candidates in by_place(tmp_path / "s").values():
        for one in candidates:
            picture = torch.from_numpy(np.array(square(decode(one["image"]["bytes"], "row"), 224)))
            pixels = picture.permute(2, 0, 1)[None].float() / 255
            small = interpolate(pixels, (32, 32), mode="bicubic", antialias=True).clamp(0, 1)
            with torch.no_grad():
                words = tokenizer([one["prompt"]], return_tensors="pt")
                told = model(pixel_values=(small - mean) / deviation, **words)
                cosine = float(told.logits_per_image / model.logit_scale.exp())
            assert one["clip_score"] == pytest.approx(cosine, abs=1e-5)
        best = max(candidates, key=lambda r: r["clip_score"])
        assert [r["index"] for r in candidates if not r["reason"]] == [best["index"]]


def test_the_band_holds_what_is_as_near_as_real_photos_are_to_each_other():
    angles = np.array([0.0, 0.1, 0.2, 0.4])
    band = choice.Band(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    nearest = [1 - np.cos(one) for one in (0.1, 0.1, 0.1, 0.2)]
    assert band.width == pytest.approx(np.quantile(nearest, 0.95))
    assert band.distance(np.array([np.cos(0.15), np.sin(0.15)])) < 1 < band.distance(np.array([0.0, 1.0]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"candidates": 3}, ("--candidates", "--keep")),
        ({"keep": "random"}, ("--candidates", "--keep")),
        ({"candidates": 0}, ("--candidates 0",)),
        ({"candidates": 3, "keep": "margin"}, ("--keep margin", "--screen_classifier")),
        ({"candidates": 3, "keep": "near"}, ("--keep near", "--backbone")),
        ({"candidates": 3, "keep": "clip"}, ("--keep clip", "--backbone")),
        ({"candidates": 3, "keep": "random", "backbone": "x"}, ("--backbone", "diverse")),
        ({"candidates": 3, "keep": "random", "screen_classifier": "x"}, ("--screen_classifier",)),
        ({"rescreen": True, "steps": 4}, ("--rescreen", "--steps")),
        ({"rescreen": True, "lora": ("a",)}, ("--rescreen", "--lora")),
        ({"rescreen": True, "candidates": 3, "keep": "random"}, ("--rescreen", "--candidates")),
    ],
)
def test_rules_without_what_they_need_are_refused(refused, options, words):
    with refused(*words):
        Generate(**options).require_valid()


def test_a_backbone_that_cannot_do_it_is_refused(tmp_path, generate, backbones, refused, photos):
    options = {"candidates": 2, "count": 2, "data": str(photos)}
    with refused("--backbone nowhere", "not on this machine"):
        generate(tmp_path / "s", keep="near", backbone="nowhere", **options)
    with refused("takes no text", "use a CLIP"):
        generate(tmp_path / "s", keep="clip", backbone=str(backbones / "dinov2"), **options)


def test_another_rule_for_a_class_that_is_there_is_refused_and_the_way_shown(tmp_path, generate, refused):
    generate(tmp_path / "s", **OPTIONS)
    with refused("apple is there with candidates 3 (requested: 2)", "another --output"):
        generate(tmp_path / "s", **{**OPTIONS, "candidates": 2})
    with refused("apple is there with screens", "--rescreen"):
        generate(tmp_path / "s", **OPTIONS, screens=("none",))
