"""Prompt templates: one place-holder, filled in as text."""

from orchard.errors import UserError

PLACE = "{label}"
DEFAULT = f"a photo of {PLACE}"


def fill(template: str, label: str) -> str:
    """The template with the class name in it; other braces stay as they are."""
    return template.replace(PLACE, label)


def require_place(template: str) -> None:
    """Raise `UserError` when the class name has no place in the template."""
    if PLACE not in template:
        raise UserError(f"--prompt {template!r}: has no {PLACE} in it")
