"""What several test files share: where the real data lies, and one way to expect a user error."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchard.errors import UserError

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture
def fruit() -> Path:
    """The Kaggle set, as downloaded."""
    return DATA / "fruit"


@pytest.fixture
def signs() -> Path:
    """Five classes of traffic signs with a split of their own."""
    return DATA / "gtsrb5"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Stable Diffusion pipeline with small random weights."""
    import pipelines

    return pipelines.tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Such a folder for each of `pipelines.TINY`."""
    import pipelines

    return {name: make(tmp_path_factory.mktemp("bases") / name) for name, make in pipelines.TINY.items()}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real set of noise images, of apples and pears, with a split of its own."""
    import stub_sampler

    return stub_sampler.photos(tmp_path_factory.mktemp("real") / "photos")


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch, base: Path, photos: Path) -> Callable[..., int]:
    """Run the command with images drawn by a function, for noise photos; the number of images drawn."""
    import stub_sampler

    def run(output: Path, draw: stub_sampler.Draw = stub_sampler.noise, **options: Any) -> int:
        return stub_sampler.generate(monkeypatch, base, output, draw, **{"data": str(photos), **options})

    return run


@pytest.fixture(scope="session", autouse=True)
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Encoded photos and prompts of all tests, apart from the user's own; none leans on the user's photos."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHARD_CACHE", str(folder))
        patch.delenv("ORCHARD_FRUIT", raising=False)
        yield folder


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Each test has an accelerator of its own, whatever the one before asked of the shared state."""
    yield
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def refused() -> Callable[..., AbstractContextManager[None]]:
    """``with refused("apple", "add one"):`` expects a one-line `UserError` with those words."""

    @contextmanager
    def expect(*words: str) -> Iterator[None]:
        with pytest.raises(UserError) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        assert not re.search(r"0x[0-9a-f]{6}|Traceback", message), message
        for word in words:
            assert word in message, message

    return expect


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``moments``: how often a fault happens, as its marker says; ``slow`` of them in a slow test beside."""
    if "moments" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("fault")
        assert marker
        slow = marker.kwargs.get("slow", 0)
        rest = [pytest.param(slow, marks=pytest.mark.slow)] if slow else []
        metafunc.parametrize("moments", [marker.args[1] - slow, *rest])
