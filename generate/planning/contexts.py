"""Contexts that the adapters' training photos had, and how rows are asked for them.

Whatever goes with a class teaches the classifier, so by default every class is asked for the contexts of all
of them: row k of each for the same one, all equally often. The colours of objects stay with their class.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from generate.config import Contexts, Generate
from generate.planning import prompts
from generate.sampling.loras import Blend
from orchard.adapters.contexts import Bank, coloured
from orchard.cli import cli
from orchard.errors import UserError
from orchard.images.images import sha256

NAME = "context"
"""What templates call it."""
MOST_COLOURS = 100
"""Prompts that show a class's colours in their shares."""


@dataclass(frozen=True, kw_only=True)
class ClassContexts:
    """What the rows of one class are asked for besides the class."""

    mode: Contexts
    phrases: tuple[str, ...]
    """Contexts; one that is to come more often stands there more often."""
    names: tuple[str, ...]
    """What the class is called in turn: with the colours of its photos, in their shares."""

    def arguments(self) -> dict[str, str]:
        """What decides the prompts besides the row's own adapter."""
        return {
            "contexts": self.mode,
            "contexts_digest": sha256(json.dumps([self.phrases, self.names]).encode()),
        }


def mode(config: Generate, vary: Mapping[str, Sequence[str]]) -> Contexts | None:
    """What the options alone say; None for shuffled contexts where the adapters have some.

    Raises:
        UserError: options that contradict each other.
    """
    given = config.contexts
    if NAME in vary:
        cli.check(
            given in (None, "none"),
            f"--contexts {given}: --vary {NAME} has that name, too; give the vocabulary another",
        )
        return "none"
    used = any(NAME in prompts.names(template) for template in config.prompt)
    if given is None:
        return None if not (config.prompt or config.vary) else "shuffled" if used else "none"
    cli.check(
        used or given == "none" or not config.prompt,
        f"--contexts {given}: no --prompt uses them; write {{{{ {NAME} }}}} into one",
    )
    return given


def resolve(
    config: Generate, wanted: Contexts | None, classes: Mapping[str, Blend], blends: Iterable[Blend]
) -> dict[str, ClassContexts]:
    """What each of the classes is asked for, which are sampled from their blends; empty without contexts.

    Raises:
        UserError: contexts are wanted, or some adapters have them, and others have none.
    """
    banks = {label: bank for label, blend in classes.items() if (bank := _of_class(blend, label))}
    lacking = [label for label in classes if label not in banks]
    if wanted == "none" or (wanted is None and not banks):
        return {}
    if lacking and wanted is None:
        raise UserError(
            f"--lora: {next(iter(banks))} was trained with contexts, {lacking[0]} was not; where they go "
            "with some classes alone a classifier learns them: train both alike, or pass --contexts none"
        )
    if lacking and not classes[lacking[0]].parts:
        raise UserError(f"--contexts {wanted}: goes with --lora, adapters trained with --captions context")
    if lacking:
        raise UserError(
            f"--contexts {wanted}: the adapter of {lacking[0]} has none; train it with --captions context, "
            f"or leave --contexts and {{{{ {NAME} }}}} out"
        )
    pool = sorted({text for blend in blends for one in _banks(blend) for text in one["contexts"]})
    words = {label: blend.word(label) for label, blend in classes.items()}
    return {
        label: _of_bank(config, wanted or "shuffled", words[label], bank, pool)
        for label, bank in banks.items()
    }


def _of_bank(config: Generate, mode: Contexts, label: str, bank: Bank, pool: Sequence[str]) -> ClassContexts:
    phrases = pool if mode == "shuffled" else list(Counter(bank["contexts"]).elements())
    if len(config.prompt) < 2 and not config.vary:  # else too many combinations are refused
        phrases = prompts.spread(NAME, phrases, config.seed)[: prompts.MOST]
    colours = [] if config.prompt else list(Counter(bank["colours"]).elements())
    shown = prompts.spread("colour", colours, config.seed)[:MOST_COLOURS]
    names = [coloured(label, colour) for colour in shown]
    return ClassContexts(mode=mode, phrases=tuple(phrases), names=tuple(names or [label]))


def _banks(blend: Blend) -> list[Bank]:
    return [bank for one in blend.provenances if one for bank in one.contexts.values()]


def _of_class(blend: Blend, label: str) -> Bank | None:
    """The bank of a class; of several adapters that know the class their sum."""
    banks = [one.contexts[label] for one in blend.provenances if one and label in one.contexts]
    if not banks:
        return None
    contexts, colours = Counter[str](), Counter[str]()
    for bank in banks:
        contexts.update(bank["contexts"])
        colours.update(bank["colours"])
    return Bank(contexts=dict(contexts), colours=dict(colours))
