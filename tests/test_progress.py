"""What a person sees while a recipe runs."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator

import pytest

from edgekit.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def stepped(*times_s: float) -> Iterator[float]:
    yield from times_s


def test_a_log_gets_one_plain_line_for_every_fact() -> None:
    log = io.StringIO()
    progress = Progress(log)
    progress.stage(2, 4, "distill")
    progress.epoch(1, 2, loss=0.5, accuracy=0.9712)
    progress.note("bfloat16 is 3.1 times faster here")
    progress.done(12.34)
    lines = log.getvalue().splitlines()
    assert lines[0] == "[2/4] distill ..."
    assert lines[1].startswith("[2/4] distill  epoch 1/2  loss 0.500  accuracy 97.1 %")
    assert lines[2] == "      bfloat16 is 3.1 times faster here"
    assert lines[3] == "[2/4] distill  done in 12.3 s"
    assert "\x1b" not in log.getvalue()


def test_time_left_is_the_mean_epoch_times_the_epochs_to_come() -> None:
    clock = stepped(0.0, 100.0, 110.0, 120.0)  # made, stage, after epoch 1, after epoch 2
    log = io.StringIO()
    progress = Progress(log, clock=lambda: next(clock))
    progress.stage(1, 1, "finetune")
    progress.epoch(1, 5)  # 10 s an epoch, 4 to come
    progress.epoch(2, 5)  # 10 s an epoch, 3 to come
    lines = log.getvalue().splitlines()
    assert lines[1].endswith("epoch 1/5  40.0 s left")
    assert lines[2].endswith("epoch 2/5  30.0 s left")


def test_the_last_epoch_has_no_time_left_to_tell() -> None:
    log = io.StringIO()
    progress = Progress(log)
    progress.stage(1, 1, "finetune")
    progress.epoch(3, 3, loss=0.1)
    assert "left" not in log.getvalue()


def test_a_terminal_line_is_rewritten_and_only_the_end_of_a_stage_stays() -> None:
    screen = Terminal()
    progress = Progress(screen)
    progress.stage(1, 2, "prune")
    progress.epoch(1, 2)
    assert "\n" not in screen.getvalue()
    progress.done(3.0)
    assert screen.getvalue().count("\n") == 1
    assert screen.getvalue().count("\r\x1b[2K") == 3


def test_no_color_is_obeyed_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Terminal()
    Progress(screen).warn("slow")
    assert screen.getvalue() == "      warning: slow\n"


def test_a_long_line_is_cut_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    screen = Terminal()
    progress = Progress(screen)
    progress.stage(1, 1, "a-rather-long-name")
    progress.epoch(1, 9, loss=1.0, accuracy=0.5)
    assert len(screen.getvalue().rpartition("\x1b[2K")[2]) == 29


def test_quiet_shows_warnings_and_nothing_else() -> None:
    log = io.StringIO()
    progress = Progress(log, quiet=True)
    progress.stage(1, 1, "finetune")
    progress.epoch(1, 2, loss=0.3)
    progress.note("a fact")
    progress.warn("2 images could not be read")
    progress.done(1.0)
    assert log.getvalue() == "      warning: 2 images could not be read\n"


def test_a_cached_stage_says_that_it_was_reused() -> None:
    log = io.StringIO()
    progress = Progress(log)
    progress.stage(1, 3, "finetune")
    progress.done(0.0, cached=True)
    assert log.getvalue().splitlines()[1] == "[1/3] finetune  reused from an earlier run"


@pytest.mark.parametrize(("seconds", "text"), [(4.24, "4.2 s"), (65, "1 min 05 s"), (7380, "2 h 03 min")])
def test_durations_read_like_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_progress_is_imported_without_torch_or_rich() -> None:
    code = "import sys, edgekit.progress; print({'torch', 'rich', 'pydantic'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
