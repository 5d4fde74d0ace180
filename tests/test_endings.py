"""How a command ends when a signal comes, also where a library swallows it."""

from __future__ import annotations

import os
import signal
import time

import pytest
import typer

from edgekit import endings
from edgekit.errors import NumericsError


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_with_its_exit_code(number: int, exit_code: int) -> None:
    def stopped() -> None:
        with endings.guard(as_json=False):
            os.kill(os.getpid(), number)
            time.sleep(5)

    with pytest.raises(typer.Exit) as ending:
        stopped()
    assert ending.value.exit_code == exit_code


def test_a_signal_that_a_library_swallows_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "AGAIN_S", 0.05)

    def swallowed() -> None:
        with endings.guard(as_json=False):
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            except:  # noqa: E722 - what torch-pruning does
                pass
            time.sleep(5)

    with pytest.raises(typer.Exit) as ending:
        swallowed()
    assert ending.value.exit_code == 130


def test_handlers_are_as_before_once_the_command_has_ended() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    with endings.guard(as_json=False):
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before


def test_an_error_is_told_on_stderr_and_with_json_on_stdout_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ending, endings.guard(as_json=True):
        raise NumericsError("the loss is NaN", next="lower lr")
    told = capsys.readouterr()
    assert ending.value.exit_code == 8
    assert told.err == "the loss is NaN\n  next: lower lr\n"
    assert '"exit_code": 8' in told.out
