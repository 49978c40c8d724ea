"""Prompts from Jinja2 templates and small vocabularies: every combination evenly, the same for every class.

A background that went with a class would teach the classifier the background. So the combination of row k
depends on k and the run's seed alone, and in every prefix of the rows the phrases of one vocabulary are
used equally often, but for one.
"""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from orchard.errors import UserError
from orchard.splits import stable_hash

MOST = 1000
TEMPLATE, LABEL = "template", "label"
PLACE = re.compile(r"(?<!\{)\{label\}(?!\})")


def vocabularies(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``("light=dim", "light=bright")`` -> ``{"light": ("dim", "bright")}``.

    Raises:
        UserError: not of that form, a name that Jinja2 cannot take, or a phrase twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for word in words:
        name, equals, phrase = word.partition("=")
        if not equals or not name.isidentifier() or name in (LABEL, TEMPLATE):
            raise UserError(
                f"--vary {word}: give NAME=PHRASE, with a name of letters other than label and template"
            )
        if phrase in found.get(name, ()):
            raise UserError(f"--vary {word}: given twice; leave one out")
        found[name] = (*found.get(name, ()), phrase)
    return found


def with_phrases(template: str, names: Sequence[str]) -> str:
    """The template followed by a phrase of each vocabulary, after commas; empty phrases are left out."""
    return f"{template}{{% for phrase in [{', '.join(names)}] if phrase %}}, {{{{ phrase }}}}{{% endfor %}}"


def require_valid(templates: Sequence[str], vary: Mapping[str, Sequence[str]]) -> None:
    """Raise `UserError` unless every combination gives a prompt that names the class.

    A vocabulary that no template uses is refused too.
    """
    mark = "\x1f"
    for prompt in render(templates, vary, mark, 0):
        if mark not in prompt:
            raise UserError(f"--prompt {prompt!r}: has no {{label}} in it")
    used = set().union(*map(_names, templates))
    unused = [name for name in vary if name not in used]
    if unused:
        raise UserError(f"--vary {unused[0]}: no --prompt uses it; write {{{{ {unused[0]} }}}} into one")


def render(
    templates: Sequence[str], vary: Mapping[str, Sequence[str]], label: str, seed: int
) -> tuple[str, ...]:
    """The prompts of a class, one a combination of template and phrases, in the order rows take them.

    Raises:
        UserError: a template that is not Jinja2's, uses an unknown name, or too many combinations.
    """
    choices = {TEMPLATE: templates, **vary}
    combinations = math.prod(map(len, choices.values()))
    if combinations > MOST:
        raise UserError(
            f"--vary makes {combinations} combinations; give fewer phrases, {MOST} combinations at most"
        )
    shuffled = [_shuffled(name, phrases, seed) for name, phrases in choices.items()]
    prompts = []
    for places in spread(tuple(map(len, shuffled))):
        template, *phrases = (words[place] for words, place in zip(shuffled, places, strict=True))
        said = {name: _fill(phrase, {LABEL: label}) for name, phrase in zip(vary, phrases, strict=True)}
        prompts.append(_fill(template, {LABEL: label, **said}))
    return tuple(prompts)


def _shuffled(name: str, phrases: Sequence[str], seed: int) -> list[str]:
    return sorted(phrases, key=lambda phrase: stable_hash("phrase", seed, name, phrase))


@functools.cache
def spread(sizes: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Every combination of ``range(n) for n in sizes`` once, evenly mixed.

    Row k of a walk along the diagonal takes place ``k mod n`` of each range, so no prefix of it uses one
    place of a range twice more than another; it comes back to its start after the least common multiple
    of the sizes. Each further walk starts where none has been, in the order that spreads the other ranges.
    """
    if not sizes:
        return ((),)
    length = math.lcm(*sizes)
    seen: set[tuple[int, ...]] = set()
    found: list[tuple[int, ...]] = []
    for rest in spread(sizes[1:]):
        start = (0, *rest)
        if start in seen:
            continue
        walk = [
            tuple((place + step) % size for place, size in zip(start, sizes, strict=True))
            for step in range(length)
        ]
        seen.update(walk)
        found.extend(walk)
    return tuple(found)


@functools.cache
def _environment() -> Any:
    """Jinja2 in its sandbox, since a template may come out of somebody's adapter."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment(undefined=StrictUndefined)


@functools.lru_cache(maxsize=2 * MOST)
def _compiled(template: str) -> Any:
    return _environment().from_string(_source(template))


def _source(template: str) -> str:
    """``{label}``, as the trainer's templates have it, is short for Jinja2's ``{{ label }}``."""
    return PLACE.sub("{{ label }}", template)


def _names(template: str) -> set[str]:
    from jinja2 import meta

    return meta.find_undeclared_variables(_environment().parse(_source(template)))


def _fill(template: str, values: Mapping[str, str]) -> str:
    from jinja2 import TemplateError

    try:
        return _compiled(template).render(values)
    except TemplateError as error:
        known = ", ".join(values)
        raise UserError(f"--prompt {template!r}: {error}; a Jinja2 template that knows {known}") from None
