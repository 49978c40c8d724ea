"""Prompt templates: one place-holder, filled in as text."""

from orchard.errors import UserError

PLACEHOLDER = "{label}"
DEFAULT = f"a photo of {PLACEHOLDER}"


def fill(template: str, label: str) -> str:
    """The template with the class name in it; other braces stay as they are."""
    return template.replace(PLACEHOLDER, label)


def require_placeholder(template: str) -> None:
    """Raise `UserError` when the class name has no place in the template."""
    if PLACEHOLDER not in template:
        raise UserError(f"--prompt {template!r}: has no {PLACEHOLDER} in it")
