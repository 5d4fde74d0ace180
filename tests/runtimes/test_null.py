"""The null runtime: nothing, or a sleep."""

from __future__ import annotations

import pytest

from edgekit.errors import InputError
from edgekit.runtimes import null


def test_it_is_always_here_and_gives_nothing() -> None:
    session = null.open_session("no such file", {"threads": 1})
    assert null.missing() is None
    assert session.infer({}) == {}
    assert session.engine["runtime"] == "null"
    assert session.layers() == []


def test_a_sleep_is_what_it_takes() -> None:
    samples_ms = null.open_session("", {"sleep_ms": 2}).time_ms({}, 10)
    assert 2 <= min(samples_ms) < 3  # a busy machine wakes some of them late, not all


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(InputError, match="Did you mean 'sleep_ms'"):
        null.open_session("", {"sleep": 2})
