"""How a command ends: its result on stdout, or one message of one shape and the exit code of its class."""

from __future__ import annotations

import contextlib
import errno
import json
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import typer

from edgekit.errors import EdgekitError, Interrupted, ResourceError

AGAIN_S = 5.0  # after which a signal that some library swallowed is raised once more


def result(record: dict[str, Any], as_json: bool) -> None:
    """Prints a result: one JSON object, or a line for each of its values."""
    if as_json:
        typer.echo(json.dumps(record))
        return
    for key, value in record.items():
        typer.echo(f"{key.replace('_', ' ')}: {value}")


@contextlib.contextmanager
def guard(as_json: bool) -> Iterator[None]:
    """Turns whatever ends a command into its message and its exit code.

    Ctrl-C and SIGTERM unwind like an error, so that locks are released and work that can go on is kept.
    """
    try:
        with _signals():
            yield
    except EdgekitError as error:
        _fail(error, as_json)
    except _Stopped as stop:
        _fail(_interrupted(stop.number), as_json)
    except KeyboardInterrupt:
        _fail(_interrupted(signal.SIGINT), as_json)
    except MemoryError:
        _fail(ResourceError("memory ran out", next="lower batch in the recipe's stages"), as_json)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _fail(ResourceError(f"the disk is full: {error}", next="free some and run the same command again"), as_json)


def _fail(error: EdgekitError, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(error.as_dict()))
    for line in error.lines():
        typer.echo(line, err=True)
    raise typer.Exit(error.exit_code)


class _Stopped(BaseException):
    """A signal came."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Raises _Stopped where SIGINT or SIGTERM finds the program; libraries with a bare `except:` get it again."""
    came: list[signal.Signals] = []

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(signal.Signals(number))
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S, AGAIN_S)
        raise _Stopped(came[0])

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before: dict[signal.Signals, Any] = {}
    with contextlib.suppress(ValueError):  # not the main thread: whoever called us handles signals
        before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        if before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupted(number: signal.Signals) -> Interrupted:
    return Interrupted(
        f"stopped by {number.name}",
        signal=number,
        kept="every finished step",
        next="run the same command again to go on",
    )
