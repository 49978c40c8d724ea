"""What several test files share: image sets, small bases, what a test needs, how to expect a user error."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchard.errors import UserError
from orchard.files import lock

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
REAL = {"fruit": "fruit", "signs": "gtsrb5"}
"""Fixture -> the folder of ``DATA`` that has the real set."""
MISSING = {
    "fruit": "put the Kaggle set into ../shared/data/fruit",
    "signs": "put five classes of GTSRB into ../shared/data/gtsrb5",
    "browser": "put a Chromium on the PATH (Debian: apt install chromium)",
    "networks": "run as root on Linux, with iproute2 (Debian: apt install iproute2)",
}
"""What a test may need (``@pytest.mark.needs("fruit")``), and what to do where it is missing."""
NETWORK_CAPABILITIES = (12, 21)
"""CAP_NET_ADMIN and CAP_SYS_ADMIN of linux/capability.h."""
STARTERS = {"subprocess", "shell", "forks", "launches", "nodes", "trials", "disturb"}
BUILDERS = {"diffusers", "mini", "pipelines"}
SEARCHERS = {"hypothesis"}
BASES = {"base", "folders"}
"""With one of these (imports, fixtures) or a browser, a test starts processes, builds diffusion models or
searches for inputs."""


def chromium() -> str | None:
    """The browser that opens report pages."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def makes_networks() -> bool:
    """Whether a network namespace can be made here."""
    if not shutil.which("ip") or not sys.platform.startswith("linux"):
        return False
    (may,) = re.findall(r"^CapEff:\t(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return all(int(may, 16) >> capability & 1 for capability in NETWORK_CAPABILITIES)


def require(need: str) -> None:
    """Skip the test where ``need`` is missing; in CI, which has everything, it fails."""
    tools = {"browser": chromium, "networks": makes_networks}
    there = tools[need]() if need in tools else (DATA / REAL[need]).is_dir()
    if not there and os.environ.get("CI") == "true":
        pytest.fail(f"CI lacks what this test needs: {MISSING[need]}", pytrace=False)
    if not there:
        pytest.skip(MISSING[need])


def either(name: str) -> pytest.MarkDecorator:
    """Run a test on the stand-in of a set and on the real one."""
    both = ("stand-in", pytest.param("real", marks=pytest.mark.needs(name)))
    return pytest.mark.parametrize(name, both, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make quick` leaves out, so that nobody has to remember it."""
    for item in items:
        if isinstance(item, pytest.Function) and is_heavy(item):
            item.add_marker("heavy")


def is_heavy(test: pytest.Function) -> bool:
    """Whether `make quick` leaves the test out, by what its file imports and which fixtures it uses."""
    found = vars(test.module).values()
    names = (getattr(value, "__module__", None) or getattr(value, "__name__", "") for value in found)
    imported = {str(name).partition(".")[0] for name in names}
    needs = {need for marker in test.iter_markers("needs") for need in marker.args}
    return bool(
        imported & (STARTERS | BUILDERS | SEARCHERS) or BASES & set(test.fixturenames) or "browser" in needs
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        require(*marker.args)


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stand-in for each real set, drawn once for all processes of the tests."""
    import stand_ins

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "stand_ins"
    folder.mkdir(exist_ok=True)
    with lock.exclusive(folder):
        for name in REAL:
            if not (folder / name).exists():
                getattr(stand_ins, name)(folder / name)
    return folder


@pytest.fixture
def fruit(request: pytest.FixtureRequest, stand_ins: Path) -> Path:
    """The Kaggle set as downloaded: a stand-in, or the real one for a test that needs it."""
    return _set("fruit", request, stand_ins)


@pytest.fixture
def signs(request: pytest.FixtureRequest, stand_ins: Path) -> Path:
    """Five classes of traffic signs with a split of their own: likewise."""
    return _set("signs", request, stand_ins)


def _set(name: str, request: pytest.FixtureRequest, stand_ins: Path) -> Path:
    real = any(name in marker.args for marker in request.node.iter_markers("needs"))
    return DATA / REAL[name] if real else stand_ins / name


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield opened
        opened.close()


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
def encoded(tmp_path_factory: pytest.TempPathFactory, stand_ins: Path) -> Iterator[Path]:
    """Encoded photos and prompts of tests, apart from the user's own. ``--data fruit`` is the stand-in."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHARD_CACHE", str(folder))
        patch.setenv("ORCHARD_FRUIT", str(stand_ins / "fruit"))
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
