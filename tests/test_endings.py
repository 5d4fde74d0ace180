"""How a command ends when a signal comes, also where a library swallows it."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import typer

from edgekit import endings
from edgekit.errors import NumericsError

# In processes of their own: where OpenVINO had compiled a model, a signal was seen to end in a segmentation fault.
STOPPED = """
import os, sys, time
from edgekit import endings
endings.AGAIN_S = 0.05
with endings.guard(as_json=False):
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(5)
    except:
        if sys.argv[2] == "passed on":
            raise
    time.sleep(5)
"""


@pytest.mark.parametrize("what_a_bare_except_does", ["passed on", "swallowed"])
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_also_where_a_library_swallows_it(
    number: signal.Signals, exit_code: int, what_a_bare_except_does: str
) -> None:
    code = f"import typer\ntry:\n{textwrap.indent(STOPPED, '    ')}\nexcept typer.Exit as e:\n    sys.exit(e.exit_code)"
    command = [sys.executable, "-c", code, str(int(number)), what_a_bare_except_does]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == exit_code, done.stderr
    assert f"stopped by {number.name}" in done.stderr


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
