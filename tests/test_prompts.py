"""Prompts: every combination evenly, the same for every class, one line for what cannot be filled in."""

import itertools
from collections import Counter

import pytest

from generate import prompts
from generate.config import Generate
from orchard import cli

VARY = {"background": ("on grass", "on a table", "in snow"), "light": ("dim", "bright"), "pose": ("", "cut")}
TEMPLATES = ("a photo of {label} {{ background }}, {{ light }} {{ pose }}",)
SIZES = [(2, 2), (3, 2), (4, 6, 2), (5,), (2, 2, 2, 3), (1, 4), (6, 4, 9)]


@pytest.mark.parametrize("sizes", SIZES)
def test_a_cycle_has_every_combination_once(sizes):
    assert sorted(prompts.spread(sizes)) == list(itertools.product(*map(range, sizes)))


@pytest.mark.parametrize("sizes", SIZES)
def test_no_prefix_uses_a_phrase_twice_more_than_another(sizes):
    order = prompts.spread(sizes) * 2
    for length in range(1, len(order) + 1):
        for place, size in enumerate(sizes):
            used = Counter(combination[place] for combination in order[:length])
            counts = [used[choice] for choice in range(size)]
            assert max(counts) - min(counts) <= 1, (length, place)


def test_the_same_row_of_every_class_has_the_same_phrases():
    apple, pear = (prompts.render(TEMPLATES, VARY, label, 7) for label in ("apple", "pear"))
    assert len(set(apple)) == 12
    assert [prompt.replace("apple", "pear") for prompt in apple] == list(pear)


def test_another_seed_uses_the_combinations_in_another_order():
    first, second = (prompts.render(TEMPLATES, VARY, "apple", seed) for seed in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)


def test_templates_are_one_more_vocabulary():
    found = prompts.render(
        ("{label}, {{ light }}", "one {{ label }}"), {"light": ("dim", "bright")}, "fig", 0
    )
    assert Counter(found) == {"fig, dim": 1, "fig, bright": 1, "one fig": 2}


def test_a_phrase_may_hold_the_class():
    found = prompts.render(
        ("a photo of {{ number }}",), {"number": ("one {label}", "two {label}s")}, "fig", 0
    )
    assert sorted(found) == ["a photo of one fig", "a photo of two figs"]


def test_phrases_follow_a_template_that_does_not_name_them():
    template = prompts.with_phrases("a photo of {label}", ["light", "pose"])
    vary = {"light": ("dim",), "pose": ("", "cut")}
    assert set(prompts.render((template,), vary, "fig", 0)) == {
        "a photo of fig, dim",
        "a photo of fig, dim, cut",
    }


def test_a_class_name_is_never_read_as_a_template():
    assert prompts.render(("{label}",), {}, "{{ 7 * 7 }}", 0) == ("{{ 7 * 7 }}",)


@pytest.mark.parametrize(
    ("templates", "vary", "words"),
    [
        (("a {{ colour }} {label}",), {}, ("--prompt", "'colour' is undefined", "knows label")),
        (("a {{ light {label}",), {"light": ("dim",)}, ("--prompt", "a Jinja2 template")),
        (("a photo",), {}, ("'a photo'", "no {label}")),
        (("{label}",), {"light": ("dim",)}, ("--vary light", "no --prompt uses it")),
        (("{label}{{ label.__class__.__mro__ }}",), {}, ("--prompt", "unsafe")),
        (("{label}{{ a }}",), {"a": tuple(map(str, range(1001)))}, ("1001 combinations", "1000")),
    ],
)
def test_what_cannot_be_filled_in_is_one_line(refused, templates, vary, words):
    with refused(*words):
        prompts.require_valid(templates, vary)


@pytest.mark.parametrize("word", ["light", "my light=dim", "label=x", "template=x"])
def test_a_vocabulary_needs_a_name(refused, word):
    with refused(f"--vary {word}", "NAME=PHRASE"):
        prompts.vocabularies([word])


def test_a_recipe_has_a_section_of_vocabularies(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("vary:\n  light: [dim, a = b]\n  number: 3\nprompt: ['{label}, {{ light }}']\n")
    config = cli.parse(Generate, ["--config", str(recipe)], "test")
    assert prompts.vocabularies(config.vary) == {"light": ("dim", "a = b"), "number": ("3",)}
    assert config.prompt == ("{label}, {{ light }}",)
    typed = cli.parse(Generate, ["--vary", "light=dim", "light=a = b", "number=3"], "test")
    assert typed.vary == config.vary


def test_a_section_stays_a_list_of_values(tmp_path, refused):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("vary: {light: {dim: 1}}\n")
    with refused("vary", "nested"):
        cli.parse(Generate, ["--config", str(recipe)], "test")
