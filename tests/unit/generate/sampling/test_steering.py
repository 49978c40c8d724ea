"""Negative prompts, other classes to lead away from, and ranges from which each row draws its own."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pictures
import pipelines
import plans
import pytest
import torch
from pictures import encoded, noise
from plans import PROMPT, class_plan

from generate.command import generate as command
from generate.config import Generate
from generate.planning import steering
from generate.planning.init_images import InitImages
from generate.planning.jobs import jobs
from generate.planning.ranges import Range, parse
from generate.planning.steering import LEVELS
from generate.sampling import guidance, pipeline
from generate.sampling.loras import Blend
from orchard import shards
from orchard.bases import bases
from orchard.images.images import decode

OTHER, NEGATIVE = "a photo of pear", "a drawing"


def rows_of(folder, label="apple"):
    return [row for s in shards.existing(folder) if s.header.label == label for row in shards.rows_of(s.path)]


def pixels(row):
    return np.asarray(decode(row["image"]["bytes"], "row"), dtype=int)


@pytest.mark.parametrize("name", pipelines.TINY)
def test_a_row_with_a_negative_prompt_is_what_the_stock_call_gives(folders, name):
    _, pipe = pipelines.load(folders[name])
    plan = class_plan(count=2, steering=plans.led(guidance=3.0, negative=NEGATIVE))
    plain = plans.sampled(pipe, class_plan(count=2, steering=plans.led(guidance=3.0)))
    for row, ours, other in zip(plans.rows(plan), plans.sampled(pipe, plan), plain, strict=True):
        options = {"generator": torch.Generator().manual_seed(row.seed), "num_inference_steps": 3}
        options |= pipelines.sized(pipe)
        stock = pipe(PROMPT, negative_prompt=NEGATIVE, guidance_scale=3.0, **options).images[0]
        assert np.abs(np.asarray(stock, dtype=int) - ours).max() <= 1
        assert np.abs(ours - other).max() > 1


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3-t5"])
@pytest.mark.parametrize("negative", ["", NEGATIVE])
def test_contrast_mixes_the_states_of_another_class_and_of_the_negative_prompt(folders, name, negative):
    _, pipe = pipelines.load(folders[name])
    row = class_plan(steering=plans.led(negative=negative, others=((OTHER,),))).row(0)
    found = guidance.TextStates(pipe, 0.25).of([row])

    def stock(prompt, negative=None):
        others = {"prompt_2": None, "prompt_3": None} if name.startswith("sd3") else {}
        options = {"num_images_per_prompt": 1, "do_classifier_free_guidance": True, **others}
        with torch.no_grad():
            return pipe.encode_prompt(prompt, device="cpu", negative_prompt=negative, **options)

    own, other = stock(PROMPT, negative or None), stock(OTHER)
    assert torch.allclose(found["prompt_embeds"], own[0])
    assert torch.allclose(found["negative_prompt_embeds"], 0.25 * other[0] + 0.75 * own[1], atol=1e-5)
    if len(own) > 2:
        mixed = 0.25 * other[2] + 0.75 * own[3]
        assert torch.allclose(found["negative_pooled_prompt_embeds"], mixed, atol=1e-5)


def test_of_many_prompts_the_states_of_some_stay_in_memory(folders, monkeypatch):
    _, pipe = pipelines.load(folders["sd"])
    encoded, encode = [], guidance.prompt_embeds.encode
    monkeypatch.setattr(guidance, "KEPT", 2)
    monkeypatch.setattr(
        guidance.prompt_embeds,
        "encode",
        lambda *args, **more: encoded.append(args[1][0]) or encode(*args, **more),
    )
    states = guidance.TextStates(pipe, 0.0)
    rows = [replace(class_plan().row(0), prompt=prompt) for prompt in "aabcab"]
    found = [states.of([row])["prompt_embeds"] for row in rows]
    assert encoded == ["a", "b", "c", "a", "b"]
    assert torch.equal(found[0], found[4])


def test_every_other_class_is_led_away_from_as_often_with_the_same_phrases(base):
    options = {"base": str(base), "data": "demo", "contrast": 0.5, "vary": ("light=dim", "light=bright")}
    plan = jobs(Generate(**options), "fp32")[0].plan
    found = [plan.row(index) for index in range(48)]
    pairs = Counter((row.other, row.prompt) for row in found)
    assert len({other for other, _ in pairs}) == 4  # two classes, two phrases
    assert Counter(row.other for row in found if "dim" in row.prompt).total() == 24
    assert max(pairs.values()) - min(pairs.values()) <= 8
    for row in found:
        assert row.other.split(", ")[-1] == row.prompt.split(", ")[-1]
        assert plan.label not in row.other
    alone = jobs(Generate(**options, count=3, seed=0), "fp32")[0].plan
    assert [alone.row(index) for index in range(48)] == found


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_rows_of_one_batch_have_each_their_own_guidance(folders, name):
    _, pipe = pipelines.load(folders[name])
    plan = class_plan(count=4, steering=plans.led(guidance=Range(1.5, 6.0)))
    scales = [row.guidance for row in plans.rows(plan)]
    assert len(set(scales)) == 4 and all(1.5 <= scale <= 6 for scale in scales)
    together = plans.sampled(pipe, plan, batch_size=4)
    for index, (scale, ours) in enumerate(zip(scales, together, strict=True)):
        alone = plans.sampled(pipe, class_plan(count=4), batch_size=1, guidance=scale)[index]
        assert np.abs(alone - ours).max() <= 1
    assert (
        np.abs(together[0] - plans.sampled(pipe, class_plan(count=1), batch_size=1, guidance=9.0)[0]).max()
        > 1
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_scales_of_rows_round_as_plain_numbers_do(dtype):
    difference = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows = plans.rows(class_plan(count=3, steering=plans.led(guidance=Range(1.0, 9.0))))
    scales = guidance.scale(rows, torch.device("cpu"))
    assert scales > 1 and not scales > 9
    found = scales * difference
    assert found.dtype == dtype
    for row, own, one in zip(rows, found, difference, strict=True):
        assert torch.equal(own, row.guidance * one)


@pytest.fixture(scope="module")
def guided(folders):
    """``guided(plan, ...)``: images that are started from photos, by the command's own pipeline."""
    config = Generate(image_guidance="photos", precision="fp32")
    pipe = pipeline.Loader(config, torch.float32, torch.device("cpu"))(
        bases.resolve(str(folders["sd"])), Blend()
    )
    return lambda plan, **options: plans.sampled(pipe, plan, depth=0, steps=10, **options)


@pytest.fixture(scope="module")
def guides():
    data = [encoded(noise(n, (32, 32))) for n in range(3)]
    return InitImages("apple", 0, tuple(pictures.photo(str(n), "apple", data=d) for n, d in enumerate(data)))


def test_a_batch_has_rows_of_one_strength_and_each_is_what_it_is_alone(guided, guides):
    plan = class_plan(count=12, guides=guides, steering=plans.led(guidance=1.0, strength=Range(0.4, 0.8)))
    (shard,) = plan.shards(12)
    batches = list(shard.batches(4))
    assert sorted(row.index for batch in batches for row in batch) == list(range(12))
    assert all(len({row.strength for row in batch}) == 1 for batch in batches)
    strengths = [row.strength for row in plans.rows(plan)]
    assert len(set(strengths)) > 2 and set(strengths) <= {0.4, 0.5, 0.6, 0.7, 0.8}
    together = guided(plan, batch_size=4)
    for index in (0, 5, 11):
        fixed = class_plan(count=12, guides=guides)
        alone = guided(fixed, batch_size=1, guidance=1.0, strength=strengths[index])[index]
        assert np.abs(alone - together[index]).max() <= 1


def test_rows_that_are_missing_are_sampled_in_their_places_with_strengths_of_their_own():
    plan = class_plan(count=32, steering=plans.led(strength=Range(0.4, 0.8)))
    (whole,) = plan.shards(32)
    places = {row.index: (n, batch) for batch in whole.batches(4) for n, row in enumerate(batch)}
    for wanted in ([3], [7, 30], [0, 31]):
        (shard,) = plan.shards(32, np.array(wanted))
        found = list(shard.batches(4))
        assert {row.index for batch in found for row in batch} >= set(wanted)
        assert all(batch[-1].index in wanted for batch in found)
        for batch in found:
            for n, row in enumerate(batch):
                assert places[row.index][0] == n and places[row.index][1][: len(batch)] == batch


def test_a_draw_is_even_within_its_range_and_depends_on_the_row_alone():
    led = plans.led(guidance=Range(1.5, 3.0), strength=Range(0.4, 0.8))
    plan = class_plan(count=2000, steering=led)
    found = plans.rows(plan)
    counts = Counter(row.strength for row in found)
    assert len(counts) == LEVELS and max(counts.values()) < 1.3 * min(counts.values())
    scales = np.array([row.guidance for row in found])
    assert scales.min() >= 1.5 and scales.max() <= 3 and abs(scales.mean() - 2.25) < 0.05
    assert plan.row(7).again().guidance == plan.row(7).guidance
    assert plan.row(7) == class_plan(count=8, steering=led).row(7)


def test_rows_say_what_led_them_and_a_resumed_run_gives_the_same(tmp_path, base):
    options = {"base": str(base), "data": "demo", "classes": ("apple",), "steps": 2, "precision": "fp32"}
    options |= {"guidance": "1.5..3", "negative_prompt": "a drawing of {label}", "contrast": 0.5}
    options |= {"batch_size": 2, "shard_size": 4, "screens": ("none",)}
    command(Generate(output=str(tmp_path / "whole"), count=6, **options))
    command(Generate(output=str(tmp_path / "grown"), count=3, **options))
    command(Generate(output=str(tmp_path / "grown"), count=6, **options))
    whole = rows_of(tmp_path / "whole")
    assert whole == rows_of(tmp_path / "grown")
    plan = jobs(Generate(**options), "fp32")[0].plan
    for row in whole:
        planned = plan.row(row["index"])
        assert row["guidance"] == pytest.approx(planned.guidance, abs=1e-6)
        assert (row["negative_prompt"], row["contrast_prompt"]) == ("a drawing of apple", planned.other)
        assert row["strength"] is None
    arguments = shards.read_manifest(tmp_path / "whole")["arguments"]["apple"]
    assert arguments["guidance"] == "1.5..3.0" and arguments["contrast"] == 0.5
    assert arguments["negative_prompt"] == "a drawing of apple"


def test_a_set_without_them_says_nothing_of_them(tmp_path, base):
    options = {"base": str(base), "data": "demo", "classes": ("apple",), "steps": 2, "precision": "fp32"}
    command(Generate(output=str(tmp_path), count=2, **options))
    (row, _) = rows_of(tmp_path)
    assert row["guidance"] == 2
    assert {row[name] for name in ("strength", "negative_prompt", "contrast_prompt")} == {None}
    arguments = shards.read_manifest(tmp_path)["arguments"]["apple"]
    assert not {"strength", "negative_prompt", "contrast"} & arguments.keys()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"guidance": "3..1"}, ("--guidance 3..1", "1.5..3")),
        ({"guidance": "much"}, ("--guidance much",)),
        ({"guidance": "0.5..3"}, ("--guidance 0.5..3", "begin at 1")),
        ({"strength": "0..0.5"}, ("--strength 0..0.5",)),
        ({"strength": "0.5..1.5"}, ("--strength 0.5..1.5",)),
        ({"contrast": 1.5}, ("--contrast 1.5",)),
        ({"contrast": 1.0, "negative_prompt": "x"}, ("--contrast 1", "--negative_prompt")),
    ],
)
def test_what_leads_nowhere_is_refused(refused, options, words):
    with refused(*words):
        Generate(**options).require_valid()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"guidance": 1.0, "negative_prompt": "x"}, ("--negative_prompt", "--guidance above 1")),
        ({"guidance": 1.0, "contrast": 0.5}, ("--contrast", "--guidance above 1")),
        ({"negative_prompt": "{{ 9 * 9 }}"}, ("--negative_prompt", "Mul is unsafe")),
        ({"negative_prompt": "{{ light }}"}, ("--negative_prompt", "light")),
        ({"image_guidance": "demo", "strength": "0.2..0.8", "steps": 4}, ("--strength 0.2", "4 steps")),
    ],
)
def test_what_cannot_lead_is_refused_before_loading(base, refused, monkeypatch, options, words):
    monkeypatch.setattr(bases, "load", None)
    with refused(*words):
        jobs(Generate(base=str(base), data="demo", **options), "fp32")


def test_contrast_needs_another_class(base, refused):
    config, found = Generate(base=str(base), data="demo", contrast=0.5), bases.resolve(str(base))
    with refused("--contrast 0.5", "apple is alone"):
        steering.resolve(config, found, plans.settings(), "apple", ("apple",), lambda label: (label,))


def test_a_base_that_takes_guidance_as_an_input_is_led_by_nothing_else(tmp_path, refused):
    base = pipelines.tiny(tmp_path / "base")
    path = base / "unet" / "config.json"
    path.write_text(path.read_text().replace('"time_cond_proj_dim": null', '"time_cond_proj_dim": 16'))
    for options in ({"negative_prompt": "x"}, {"contrast": 0.5}, {"guidance": "2..3"}):
        config = Generate(base=str(base), data="demo", **options)
        with refused("takes guidance as a number"):
            found = bases.resolve(str(base))
            steering.resolve(
                config, found, plans.settings(), "apple", ("apple", "pear"), lambda label: (label,)
            )


def test_a_range_is_said_as_it_was_given():
    assert parse("--x", "1.5..3").argument == "1.5..3.0" and parse("--x", 2.0).argument == 2.0
    assert parse("--x", "1.5..3.0") == parse("--x", "1.5..3") and not parse("--x", "2..2").is_wide
