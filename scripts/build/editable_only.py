"""The build backend: setuptools, for an editable install alone.

A wheel would install the package ``evaluate`` over the files of the Hugging Face package of that name.
"""

from setuptools.build_meta import (
    build_editable,
    get_requires_for_build_editable,
    prepare_metadata_for_build_editable,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "prepare_metadata_for_build_editable",
]
REFUSAL = (
    "error: orchard is installed from a checkout only, by `pip install -e .`: "
    "as a wheel, its package `evaluate` would overwrite the files of the Hugging Face package of that name"
)


def build_wheel(*_args: object, **_options: object) -> str:
    """Refuse."""
    raise SystemExit(REFUSAL)


build_sdist = build_wheel
