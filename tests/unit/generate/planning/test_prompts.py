"""Prompts: every combination evenly, the same for every class, one line for what cannot be filled in."""

import itertools
import tracemalloc
from collections import Counter

import pytest
from conftest import ROOT

from generate.config import Generate
from generate.planning import prompts
from orchard.cli import cli

VARY = {"background": ("on grass", "on a table", "in snow"), "light": ("dim", "bright"), "pose": ("", "cut")}
TEMPLATES = ("a photo of {label} {{ background }}, {{ light }} {{ pose }}",)
SIZES = [
    *((5,), (1, 4), (2, 2), (3, 3), (3, 2), (5, 195)),
    *((3, 3, 3), (4, 6, 2), (2, 3, 5), (6, 4, 9), (2, 2, 100), (2, 2, 2, 3), (2, 3, 3, 3, 3, 3), (2,) * 7),
]
SINGLES, PAIRS = 3, 4
"""What counts of phrases, and of pairs of phrases, may differ by."""


@pytest.mark.parametrize("sizes", SIZES)
def test_a_cycle_has_every_combination_once(sizes):
    assert sorted(prompts.balanced(sizes)) == list(itertools.product(*map(range, sizes)))


@pytest.mark.parametrize(("together", "most"), [(1, SINGLES), (2, PAIRS)])
@pytest.mark.parametrize("sizes", SIZES)
def test_every_prefix_uses_phrases_and_pairs_of_phrases_about_equally_often(sizes, together, most):
    order = prompts.balanced(sizes) * 2
    for places in itertools.combinations(range(len(sizes)), together):
        used = Counter(dict.fromkeys(itertools.product(*(range(sizes[place]) for place in places)), 0))
        for length, combination in enumerate(order, 1):
            used[tuple(combination[place] for place in places)] += 1
            assert max(used.values()) - min(used.values()) <= most, (length, places)


def test_one_phrase_more_than_the_class_comes_in_turn():
    assert prompts.balanced((1, 3)) == ((0, 0), (0, 1), (0, 2))


def test_the_first_hundred_rows_of_the_varied_recipe_have_every_pair_of_phrases():
    config = cli.parse(Generate, ["--config", str(ROOT / "recipes" / "varied_sd15.yaml")], "test")
    vary = prompts.vocabularies(config.vary)
    rows = prompts.render(config.prompt, vary, "fig", 0)[:100]
    said = {name: [phrase.replace("{label}", "fig") for phrase in phrases] for name, phrases in vary.items()}
    for one, other in itertools.combinations(said.values(), 2):
        pairs = [sum(a in row and b in row for row in rows) for a in one for b in other]
        share = 100 / len(pairs)
        assert all(share - 2 <= count <= share + 2 for count in pairs), pairs


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


HOSTILE = [
    "{{ 1/0 }}",
    "{{ label+1 }}",
    '{% include "x" %}',
    "{% for i in range(100001) %}{% endfor %}",
    '{{ "a"*9000000000 }}',
    "{{ 9**9**9 }}",
    '{{ "%9000000000d"|format(1) }}',
    "{{ label|center(9000000000) }}",
    "{{ label.center(9000000000) }}",
    "{% set a = label ~ label %}{{ a }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% for a in label recursive %}{{ loop(a) }}{% endfor %}",
    "{% for a in [1, 2] %}{% for b in [1, 2] %}x{% endfor %}{% endfor %}",
    "{% for a in [" + "1," * 1000 + "] %}" + "x" * 1000 + "{% endfor %}",
    "{% for a in 5 %}{% endfor %}",
    "{% if label < 1 %}{% endif %}",
    "{{ label is divisibleby 0 }}",
    "{{ " + "(" * 1500 + "1" + ")" * 1500 + " }}",
    "{{ " + "not " * 900 + "1 }}",
    "{% if label %}" * 140 + "{% endif %}" * 140,
    "x" * 5000,
    "{{ self }}",
    "{{ lipsum }}",
    "\udcff",
]


@pytest.mark.parametrize("template", HOSTILE, ids=range(len(HOSTILE)))
def test_a_template_of_a_stranger_is_one_line_and_takes_little_memory(refused, template):
    prompts.render(("{label}",), {}, "fig", 0)  # what is imported for the first template
    tracemalloc.start()
    try:
        with refused("--prompt", "a Jinja2 template that knows label"):
            prompts.render(("{label}" + template,), {}, "fig", 0)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def test_a_phrase_of_a_stranger_is_as_bounded_as_a_template(refused):
    with refused("--prompt", "Mul"):
        prompts.require_valid(("{label} {{ light }}",), {"light": ('{{ "a" * 9000000000 }}',)})


def test_templates_may_choose_and_join_words():
    template = "{% if light == 'dim' %}dark{% else %}{{ light | upper }}{% endif %} {{ label ~ 's' }}"
    assert set(prompts.render((template,), {"light": ("dim", "bright")}, "fig", 0)) == {
        "dark figs",
        "BRIGHT figs",
    }


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
