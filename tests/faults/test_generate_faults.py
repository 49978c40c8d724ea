"""`python -m generate` under every fault."""

import pipelines
import pytest
import stub_sampler
from outputs import contents
from trials import Subject, Trials

from orchard import shards


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    home = tmp_path_factory.mktemp("generate")
    words = (
        *("--base", pipelines.tiny(home / "base"), "--data", stub_sampler.photos(home / "photos")),
        *("--classes", "apple", "--count", 12, "--batch_size", 4, "--shard_size", 4, "--precision", "fp32"),
    )
    return Trials(
        Subject(
            command="generate",
            words=words,
            home=home,
            seen=lambda output: {path.relative_to(output): data for path, data in contents(output).items()},
            finished=lambda output: {
                row["index"]
                for split in (shards.TRAIN, shards.REJECTED)
                for row in stub_sampler.rows(output, split)
            },
            draw="unlucky",
        )
    )


@pytest.mark.fault("kill -9", 20, "whole shards stay; the same command samples what is missing: equal bytes")
def test_killed(trials, moments):
    trials.killed(moments)


@pytest.mark.fault("SIGTERM", 20, "code 143; images stay; the same command goes on: equal bytes")
def test_terminated(trials, moments):
    trials.terminated(moments)


@pytest.mark.fault("full disk", 20, "one line; whole shards stay; then equal bytes")
def test_full_disk(trials, moments):
    trials.full(moments)


@pytest.mark.fault("read-only output", 20, "one line; whole shards stay; then equal bytes")
def test_read_only(trials, moments):
    trials.protected(moments)


@pytest.mark.fault("clock that jumps", 1, "equal bytes")
def test_clock(trials):
    trials.clock()


@pytest.mark.fault("two writers", 20, "the second is refused and changes nothing; equal bytes")
def test_two_writers(trials, moments):
    trials.two_writers(moments)
