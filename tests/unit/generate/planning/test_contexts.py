"""Contexts of training photos: shared by all classes or kept to their own, and when they are asked for."""

import itertools
from collections import Counter
from types import SimpleNamespace

import loras
import pipelines
import pytest

from generate.config import Generate
from generate.planning import contexts, prompts
from generate.planning.jobs import jobs
from generate.sampling.loras import Blend
from orchard.adapters import adapter

APPLE = {"contexts": {"white background, single": 6, "scene background": 2}, "colours": {"red": 3, "": 1}}
PEAR = {"contexts": {"blue background": 3}, "colours": {"green": 3}}


def blend(**banks) -> Blend:
    """An adapter with these banks."""
    return Blend(parts=(SimpleNamespace(adapter=SimpleNamespace(provenance=_provenance(banks))),))


def _provenance(banks) -> SimpleNamespace:
    return SimpleNamespace(contexts=banks, classes=list(banks), embeddings={})


def resolved(mode: str, **options) -> dict[str, contexts.ClassContexts]:
    both = {"apple": blend(apple=APPLE), "pear": blend(pear=PEAR)}
    return contexts.resolve(Generate(**options), mode, both, both.values())


def rows(found: contexts.ClassContexts, label: str, count: int) -> list[str]:
    template = prompts.with_phrases("a photo of {label}", ["context"])
    said = prompts.render((template,), {"context": found.phrases}, label, 0, found.names)
    return [said[index % len(said)] for index in range(count)]


def context_of(prompt: str) -> str:
    return prompt.partition(", ")[2]


def test_shuffled_contexts_are_those_of_all_classes_evenly_and_row_for_row_the_same():
    found = resolved("shuffled")
    apple, pear = ([context_of(p) for p in rows(found[name], name, 99)] for name in ("apple", "pear"))
    assert apple == pear
    for length in range(1, 100):
        used = Counter(
            {**dict.fromkeys((*APPLE["contexts"], *PEAR["contexts"]), 0), **Counter(apple[:length])}
        )
        assert max(used.values()) - min(used.values()) <= 1


def test_own_contexts_stay_with_the_class_in_the_shares_of_its_photos():
    found = resolved("own")
    assert {context_of(p) for p in rows(found["pear"], "pear", 20)} == {"blue background"}
    apple = [context_of(p) for p in rows(found["apple"], "apple", 80)]
    for length in range(1, 81):
        assert abs(apple[:length].count("scene background") - length / 4) <= 1


@pytest.mark.parametrize("mode", ["shuffled", "own"])
def test_colours_stay_with_their_class_in_the_shares_of_its_photos(mode):
    found = resolved(mode)
    said = Counter(prompt.partition(", ")[0] for prompt in rows(found["apple"], "apple", 240))
    assert said == {"a photo of red apple": 180, "a photo of apple": 60}
    assert all(prompt.startswith("a photo of green pear, ") for prompt in rows(found["pear"], "pear", 9))


def test_a_classs_contexts_are_those_of_all_adapters_that_know_it():
    fused = blend(apple=APPLE)
    other = blend(apple={"contexts": {"scene background": 4}, "colours": {"": 4}})
    fused = Blend(parts=fused.parts + other.parts)
    (found,) = contexts.resolve(Generate(), "own", {"apple": fused}, [fused]).values()
    assert Counter(found.phrases) == {"white background, single": 6, "scene background": 6}


def test_many_contexts_are_drawn_from_and_not_refused():
    banks = {name: {f"{name} {i}": 1 for i in range(250)} for name in "abcde"}
    blends = {name: blend(**{name: {"contexts": bank, "colours": {"": 250}}}) for name, bank in banks.items()}
    found = contexts.resolve(Generate(), None, blends, blends.values())
    shares = Counter(phrase[0] for phrase in found["a"].phrases)
    assert sum(shares.values()) == prompts.MOST and min(shares.values()) > 150
    assert found["a"].phrases == found["e"].phrases


def test_adapters_without_contexts_are_asked_as_ever_and_some_of_both_are_refused(refused):
    plain, told = blend(), blend(apple=APPLE)
    assert contexts.resolve(Generate(), None, {"apple": plain}, [plain]) == {}
    with refused("--lora", "apple was trained with contexts, pear was not", "--contexts none"):
        contexts.resolve(Generate(), None, {"apple": told, "pear": plain}, [told, plain])
    assert contexts.resolve(Generate(), "none", {"apple": told, "pear": plain}, [told, plain]) == {}
    with refused("--contexts own", "adapter of pear has none", "--captions context"):
        contexts.resolve(Generate(), "own", {"apple": told, "pear": plain}, [told, plain])


SAYING = "{label}, {{ context }}"


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({}, None),
        ({"contexts": "own"}, "own"),
        ({"prompt": ("a {label}",)}, "none"),
        ({"vary": ("light=dim",)}, "none"),
        ({"vary": ("light=dim",), "contexts": "shuffled"}, "shuffled"),
        ({"prompt": (SAYING,)}, "shuffled"),
        ({"prompt": (SAYING, "a {label}"), "contexts": "own"}, "own"),
        ({"prompt": (SAYING,), "vary": ("context=dim",)}, "none"),
    ],
)
def test_what_the_options_say_of_contexts(options, mode):
    assert contexts.mode(Generate(**options), prompts.vocabularies(options.get("vary", ()))) == mode


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt": ("a {label}",), "contexts": "own"}, ("--contexts own", "no --prompt uses")),
        ({"vary": ("context=dim",), "contexts": "shuffled"}, ("--contexts shuffled", "--vary context")),
        ({"prompt": (SAYING,), "contexts": "none"}, ("'context' is undefined",)),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other_are_one_line(refused, options, words):
    with refused(*words):
        jobs(Generate(**options), "fp32")


def test_phrases_that_come_several_times_are_spread_and_single_ones_keep_their_order():
    found = prompts.spread("x", ["a"] * 6 + ["b"] * 2, 0)
    assert sorted(found) == ["a"] * 6 + ["b"] * 2
    assert [found[:4].count("b"), found[4:].count("b")] == [1, 1]
    assert prompts.spread("x", "dcba", 3) == prompts.spread("x", "abcd", 3)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("contexts")
    found = loras.trained(folder, pipelines.tiny(folder / "base"), ["apple", "pear"])
    for label, bank in (("apple", APPLE), ("pear", PEAR)):
        loras.retold(adapter.find(found[label]), contexts={label: bank})
    return found


def test_a_plan_asks_for_the_contexts_of_the_files_and_says_so_in_the_header(files):
    apple, pear = jobs(Generate(lora=tuple(files.values()), count=6), "fp32")
    for one, other in itertools.product((apple, pear), repeat=2):
        pairs = [(context_of(job.plan.row(3).prompt)) for job in (one, other)]
        assert pairs[0] == pairs[1]
    assert apple.header.arguments["contexts"] == "shuffled"
    (alone,) = jobs(Generate(lora=(files["apple"],), count=6), "fp32")
    assert alone.header.arguments["contexts_digest"] != apple.header.arguments["contexts_digest"]
    part, _ = jobs(Generate(lora=tuple(files.values()), count=9), "fp32")
    assert [part.plan.row(k).prompt for k in range(6)] == [apple.plan.row(k).prompt for k in range(6)]


def test_without_contexts_a_plan_is_the_one_of_adapters_that_have_none(files):
    (job,) = jobs(Generate(lora=(files["apple"],), contexts="none"), "fp32")
    assert job.plan.prompts == ("a photo of apple",)
    assert not {"contexts", "contexts_digest", "phrase_order"} & job.header.arguments.keys()


def test_templates_may_say_a_context_and_then_name_the_class_themselves(files):
    (job,) = jobs(Generate(lora=(files["apple"],), prompt=("{{ context }}: a {label}",)), "fp32")
    assert sorted(job.plan.prompts) == ["scene background: a apple", "white background, single: a apple"]


@pytest.mark.parametrize(
    "bank",
    [
        {"apple": {"contexts": {"{{ 7 * 7 }}": 1}, "colours": {"": 1}}},
        {"apple": {"contexts": {"x" * 300: 1}, "colours": {"": 1}}},
        {"apple": {"contexts": {"a\nb": 1}, "colours": {"": 1}}},
        {"apple": {"contexts": {"a": 0}, "colours": {"": 1}}},
        {"apple": {"contexts": {}, "colours": {"": 1}}},
        {"apple": {"contexts": {str(i): 1 for i in range(300)}, "colours": {"": 1}}},
        {"apple": {"contexts": {"a": 1}}},
        {"kiwi": APPLE},
        {"apple": ["a"]},
    ],
)
def test_contexts_of_a_stranger_that_make_no_sense_are_one_line(files, tmp_path, refused, bank):
    path = tmp_path / "apple.safetensors"
    path.write_bytes(adapter.find(files["apple"]).read_bytes())
    loras.retold(path, contexts=bank)
    with refused("--lora", "header cannot be read"):
        adapter.read(path)
