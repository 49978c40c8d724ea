"""Prompts from Jinja2 templates and small vocabularies: every combination evenly, the same for every class.

A background that went with a class would teach the classifier the background, and so would a kitchen that is
always dim. So the combination of row k depends on k and the run's seed alone, and every prefix of the rows
uses the phrases of a vocabulary, and the pairs of phrases of two vocabularies, about equally often.
"""

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np

from orchard.errors import UserError
from orchard.files import checked_json
from orchard.images.splits import stable_hash

MOST = 1000
"""Combinations of phrases."""
ORDER = "balanced"
"""The name of the order that combinations come in; it stands with the rows, since others came before it."""
LONGEST = 4096
"""Characters of a template, and of a prompt that it gives; text encoders read far fewer."""
SHOWN = 200
"""Characters of a template that a message shows."""
NODES = frozenset(
    (
        *("Template", "Output", "TemplateData", "Name", "Const", "List", "Tuple", "Concat", "Filter"),
        *("For", "If", "CondExpr", "Compare", "Operand", "And", "Or", "Not"),
    )
)
"""What a template may be made of: whatever chooses and joins words, and no loop in a loop."""
FILTERS = ("capitalize", "lower", "title", "trim", "upper")
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
    mark = "\x7f"  # which no filter changes
    for prompt in render(templates, vary, mark, 0):
        if mark not in prompt:
            raise UserError(f"--prompt {prompt!r}: has no {{label}} in it")
    used = set().union(*map(_names, templates))
    unused = [name for name in vary if name not in used]
    if unused:
        raise UserError(f"--vary {unused[0]}: no --prompt uses it; write {{{{ {unused[0]} }}}} into one")


def render(
    templates: Sequence[str],
    vary: Mapping[str, Sequence[str]],
    label: str,
    seed: int,
    called: Sequence[str] = (),
) -> tuple[str, ...]:
    """The prompts of a class, one a combination of template and phrases, in the order rows take them.

    A phrase may stand there several times, and comes as often. The class is ``called`` by these names in
    turn, by default by its label; where they are more than the combinations, these come again.

    Raises:
        UserError: a template that is not Jinja2's, uses an unknown name, or too many combinations.
    """
    choices = {TEMPLATE: templates, **vary}
    combinations = math.prod(map(len, choices.values()))
    if combinations > MOST:
        raise UserError(
            f"--vary makes {combinations} combinations; give fewer phrases, {MOST} combinations at most"
        )
    for name, phrases in choices.items():
        for phrase in phrases:
            _require_names(phrase, (LABEL, *vary) if name == TEMPLATE else (LABEL,))
    shuffled = [spread(name, phrases, seed) for name, phrases in choices.items()]
    order = balanced(tuple(map(len, shuffled)))
    turns = called or (label,)
    prompts = []
    # The least number of rows in which both come in their shares.
    together = math.lcm(len(order), len(turns))
    rows = together if together <= MOST else math.ceil(len(turns) / len(order)) * len(order)
    for number in range(rows):
        places, name = order[number % len(order)], turns[number % len(turns)]
        template, *phrases = (words[place] for words, place in zip(shuffled, places, strict=True))
        said = {key: _fill(phrase, {LABEL: name}) for key, phrase in zip(vary, phrases, strict=True)}
        prompts.append(_fill(template, {LABEL: name, **said}))
    return tuple(prompts)


def negative(template: str, label: str) -> str:
    """What a class's images should not show, from a template that may have the class in it."""
    try:
        _require_names(template, (LABEL,))
        return _fill(template, {LABEL: label})
    except UserError as error:
        raise UserError(str(error).replace("--prompt", "--negative_prompt", 1)) from None


def mixed(templates: Sequence[str], vary: Mapping[str, Sequence[str]]) -> bool:
    """Whether there is more than one choice to combine, that of the template among them."""
    return sum(len(words) > 1 for words in (templates, *vary.values())) > 1


def spread(name: str, phrases: Sequence[str], seed: int) -> list[str]:
    """The phrases in an order drawn with the seed; one that stands there n times comes about evenly.

    The k-th of n stands at (k + phase) / n of the whole, which of phrases that are all different leaves the
    order of their phases.
    """
    counts = Counter(phrases)
    phases = {phrase: stable_hash("phrase", seed, name, phrase) for phrase in counts}
    places = [
        (Fraction(nth * 2**63 + phases[phrase], count), phrase)
        for phrase, count in counts.items()
        for nth in range(count)
    ]
    return [phrase for _, phrase in sorted(places)]


@functools.cache
def balanced(sizes: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Every combination of ``range(n) for n in sizes`` once, evenly mixed.

    Of the combinations that are left each row takes the one whose places and pairs of places have come least
    often so far: which adds least to the sum of the fourth powers of what their counts are off even shares.
    Whatever the sizes, with up to `MOST` combinations no prefix has a place over 3 times more than another of
    its range, nor a pair of places over 4 times more than another of its two ranges (found by trying them).
    """
    combinations = np.array(list(itertools.product(*map(range, sizes))))
    number = len(combinations)
    kinds = []
    for axes in (
        *itertools.combinations(range(len(sizes)), 1),
        *itertools.combinations(range(len(sizes)), 2),
    ):
        shape = tuple(sizes[axis] for axis in axes)
        cells = np.ravel_multi_index(tuple(combinations[:, axis] for axis in axes), shape)
        kinds.append((cells, np.zeros(math.prod(shape), np.int64), number // math.prod(shape)))
    left = np.arange(number)
    order = []
    for row in range(number):
        # In integers, which no machine rounds: processes on different ones have to agree.
        cost = sum((number * counts - row * share)[cells[left]] ** 3 for cells, counts, share in kinds)
        chosen = left[np.argmin(cost)]
        left = left[left != chosen]
        order.append(tuple(combinations[chosen].tolist()))
        for cells, counts, _ in kinds:
            counts[cells[chosen]] += 1
    return tuple(order)


@functools.cache
def _environment() -> Any:
    """Jinja2 in its sandbox and without functions, since a template may come out of somebody's adapter."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined)
    environment.globals.clear()
    environment.filters = {name: environment.filters[name] for name in FILTERS}
    return environment


@functools.lru_cache(maxsize=2 * MOST)
def _compiled(template: str) -> Any:
    return _environment().from_string(_parsed(template))


def _parsed(template: str) -> Any:
    """The syntax tree; ``{label}``, which the trainer's templates have, is short for ``{{ label }}``.

    Raises:
        ValueError: something in it that could take any time or memory, such as arithmetic or a call.
    """
    from jinja2 import nodes

    checked_json.require_characters(template)
    if len(template) > LONGEST:
        raise ValueError(f"longer than {LONGEST} characters")
    tree = _environment().parse(PLACE.sub("{{ label }}", template))
    for node in tree.find_all(nodes.Node):
        kind = type(node).__name__
        if kind not in NODES or (kind == "For" and any(node.find_all(nodes.For))):
            raise ValueError(f"{kind} is unsafe there")
    return tree


def names(template: str) -> set[str]:
    """The names that a template uses.

    Raises:
        UserError: it cannot be read.
    """
    with _one_line(template, (LABEL,)):
        return _names(template)


def _names(template: str) -> set[str]:
    from jinja2 import nodes

    names = list(_parsed(template).find_all(nodes.Name))
    return {name.name for name in names if name.ctx == "load"} - {
        name.name for name in names if name.ctx == "store"
    }


def _require_names(template: str, known: Collection[str]) -> None:
    """Raise `UserError` unless the template can be read and uses known names alone."""
    with _one_line(template, known):
        if unknown := sorted(_names(template) - set(known)):
            raise ValueError(f"{unknown[0]!r} is undefined")


def _fill(template: str, values: Mapping[str, str]) -> str:
    with _one_line(template, values):
        prompt = ""
        for piece in _compiled(template).generate(values):
            prompt += piece
            if len(prompt) > LONGEST:
                raise ValueError(f"gives more than {LONGEST} characters")
        return prompt


@contextmanager
def _one_line(template: str, known: Collection[str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a template can raise, such as comparing a word with a number
        names = ", ".join(known)
        shown = template if len(template) <= SHOWN else f"{template[:SHOWN]}…"
        raise UserError(
            f"--prompt {shown!r}: {error}; a Jinja2 template that knows {names}, if and for"
        ) from None
