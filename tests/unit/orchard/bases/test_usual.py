"""How bases are sampled where nothing is said."""

from dataclasses import replace

import pipelines
import pytest

from generate.config import Generate
from generate.planning import settings, steering
from orchard.bases import bases

NAMES = {
    "mini": (10, 2.0, "dpmsolver++"),
    "sdxl": (20, 2.0, "dpmsolver++"),
    "sdxl-turbo": (4, 1.0, "base"),
    "sd35-large-turbo": (4, 1.0, "base"),
    "someone/Dream-XL_Lightning": (4, 1.0, "euler"),
    "models/dreamTurboness": (20, 2.0, "dpmsolver++"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> bases.Base:
    return bases.resolve(str(pipelines.tiny(tmp_path_factory.mktemp("bases") / "sd")))


def resolved(base: bases.Base, **options) -> tuple[int, float, str]:
    config = Generate(**options)
    found = settings.resolve(config, base)
    led = steering.resolve(config, base, found, "apple", ["apple"], lambda label: [label])
    return found.steps, led.guidance.low, found.scheduler


@pytest.mark.parametrize("name", NAMES)
def test_a_distilled_base_is_told_by_its_name_and_sampled_in_few_steps_without_guidance(base, name):
    named = replace(base, name=name)
    assert resolved(named) == NAMES[name]
    assert resolved(named, steps=7, guidance=3.0, scheduler="ddim") == (7, 3.0, "ddim")
    assert resolved(named, lcm="lcm.safetensors") == (4, 1.0, "lcm")
