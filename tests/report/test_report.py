"""The report in every format: what it shows, what it escapes, and that it can be read back."""

from __future__ import annotations

import html.parser
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.errors import InputError
from edgekit.ledger import Ledger
from edgekit.profile import Energy
from edgekit.report import FORMATS, read, table, write
from edgekit.report.record import Report
from edgekit.report.terminal import show
from edgekit.settings import GoalSettings
from edgekit.statistics import Interval, Percentile
from edgekit.verdict import verdict
from tests.records import final, ledger, row

GOAL = GoalSettings(device="x86-cpu", runtime="onnxruntime", accuracy_drop=2.0, latency_p50_ms=0.2)
EVIL = '<script>alert("x")</script>'


def report(made: Ledger | None = None, **facts: object) -> Report:
    made = made or ledger()
    return Report(made, verdict(made.finals, GOAL), {"name": "quickstart", "goal": GOAL.model_dump(), **facts})


def printed(made: Report) -> str:
    stream = io.StringIO()
    show(made, stream)
    return stream.getvalue()


class Page(html.parser.HTMLParser):
    """Collects tags, attributes and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "line", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_format_is_written_and_the_report_can_be_read_back(tmp_path: Path) -> None:
    made = ledger()
    decided = verdict(made.finals, GOAL)
    write(tmp_path, made, decided, {"name": "quickstart"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]
    again = read(tmp_path)
    assert again.verdict == decided
    assert again.ledger.finals == made.finals
    assert again.facts == {"name": "quickstart"}


def test_a_report_read_back_renders_the_same_page(tmp_path: Path) -> None:
    made = report()
    write(tmp_path, made.ledger, made.verdict, made.facts)
    assert FORMATS["report.html"](read(tmp_path)) == (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_folder_without_a_report_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no report here"):
        read(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "other/1"}', '{"schema": "edgekit.report/1"}'])
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError):
        read(tmp_path)


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    text = FORMATS["report.html"](report())
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
    assert not re.search(r"https?://|//[a-z]|url\(|@import", text)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert ("content", policy) in page.attributes
    assert len(text) < 40_000


def test_text_from_outside_is_escaped_everywhere_in_the_page() -> None:
    evil = [
        final("prune float32 onnxruntime"),
        replace(
            final("quantize int8 onnxruntime", 0.5),
            name=EVIL,
            step=EVIL,
            precision='int8" onload="x',
            state="degraded",
            reasons=(EVIL,),
        ),
    ]
    rows = (row("teacher", "finetune", notes=(EVIL,)), row("prune", "prune"))
    text = FORMATS["report.html"](report(Ledger(rows, tuple(evil)), name=EVIL, command=EVIL, notes=[EVIL]))
    page = Page(text)
    assert "script" not in page.tags
    assert "onload" not in dict(page.attributes)
    assert EVIL not in text
    assert text.count("&lt;script&gt;") > 5


def test_text_from_outside_cannot_break_out_of_markdown() -> None:
    rows = (row("teacher", "finetune", notes=(f"{EVIL} [a](b) | `c`\n# d",)), row("prune", "prune"))
    text = FORMATS["report.md"](report(Ledger(rows, (final("prune float32 onnxruntime"),))))
    assert "<script" not in text.replace("\\<script", "")
    assert "\\[a\\](b) \\| \\`c\\` # d" in text


def test_the_picture_has_a_circle_for_each_candidate_and_a_ring_for_the_one_to_ship() -> None:
    page = Page(FORMATS["report.html"](report()))
    classes = [value for name, value in page.attributes if name == "class"]
    assert classes.count("dot float32") == 3
    assert classes.count("dot int8") == 1
    assert classes.count("ring") == 1
    assert classes.count("limit") == 4  # the goal's time and the accuracy budget, each a line and a text


def test_a_single_candidate_without_a_spread_has_a_picture_too() -> None:
    alone = Ledger((row("teacher", "finetune"),), (final("teacher float32 onnxruntime"),))
    assert "dot float32" in FORMATS["report.html"](report(alone))


def test_a_report_without_candidates_is_still_a_report() -> None:
    for render in FORMATS.values():
        assert "no candidate has a valid measurement" in render(report(Ledger((row("teacher", "finetune"),))))


def test_the_terminal_table_fits_100_columns_and_is_plain_when_not_a_terminal() -> None:
    long = final("a-rather-long-step-name int8 onnxruntime", 123.456, bytes=123_456_789)
    long = replace(long, speedup=Interval(123.4, 120, 130), speedup_over_float=Interval(123.4, 120, 130))
    wide = Ledger((row("teacher", "finetune", parameters=123_456_789, bytes=123_456_789, seconds=7380),), (long,))
    text = printed(report(wide))
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text
    assert "123,457" in text


def test_the_terminal_shows_table_verdict_misses_doubts_and_files() -> None:
    slow = GOAL.model_copy(update={"latency_p50_ms": 0.1})
    made = ledger()
    facts = {"files": {"bundle": "runs/quickstart/bundle"}, "notes": ["the machine was busy"]}
    text = " ".join(printed(Report(made, verdict(made.finals, slow), facts)).split())
    for said in (
        "quantize int8 onnxruntime 96.50 ±0.8 1.50 50.0 0.125",
        "x86-cpu: Ship quantize int8 onnxruntime: 2.00 times faster",
        "goal missed latency_p50_ms: 0.125 ms, the goal is 0.1 ms.",
        "note the machine was busy",
        "runs/quickstart/bundle",
    ):
        assert said in text


def test_a_p99_that_is_not_proven_reads_na_and_says_what_it_needs() -> None:
    few = replace(final("teacher float32 onnxruntime"), p99=Percentile(99, None, 300, 662, None))
    made = Ledger((row("teacher", "finetune"),), (few,))
    assert "n/a" in table.finals(made, "x86-cpu", None).lines[0]
    assert "p99 of teacher float32 onnxruntime on x86-cpu: n/a (n = 300, needs 662)." in printed(report(made))


def test_unknown_is_a_dash_and_never_zero() -> None:
    unknown = replace(final("teacher float32 onnxruntime"), accuracy=None, accuracy_drop=None)
    made = Ledger((row("teacher", "finetune", accuracy=None, p50_ms=None, p99=None),), (unknown,))
    assert table.finals(made, "x86-cpu", None).lines[0][1:3] == ("–", "–")
    step = table.steps(made).lines[0]
    assert (step[1], step[2], step[6], step[7]) == ("–", "–", "–", "–")


def test_energy_has_a_column_only_where_it_was_read() -> None:
    bare = final("teacher float32 onnxruntime")
    energy = Energy(0.0125, None, None, None, "package", 300)
    read_it = replace(final("prune float32 onnxruntime"), energy=energy)
    assert table.finals(Ledger((), (bare,)), "x86-cpu", None, wide=True).headings[-1] == "× float"
    both = table.finals(Ledger((), (bare, read_it)), "x86-cpu", None, wide=True)
    assert both.headings[-1] == "mJ"
    assert sorted(line[-1] for line in both.lines) == ["12.5", "–"]


def test_a_cached_step_reads_reused() -> None:
    assert table.steps(Ledger((row("a", "finetune", cached=True),))).lines[0][-1] == "reused"


def test_the_json_report_is_strict_json() -> None:
    text = FORMATS["report.json"](report())
    assert json.loads(text)["schema"] == "edgekit.report/1"
    assert "NaN" not in text
    assert "Infinity" not in text


@pytest.mark.parametrize(
    ("number", "text"), [(None, "–"), (999, "999"), (25_000, "25 k"), (267_400, "267 k"), (2_100_000, "2.1 M")]
)
def test_counts_are_short(number: int | None, text: str) -> None:
    assert table.count(number) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.0892, "0.0892"), (0.9, "0.900"), (12.34, "12.3"), (250.0, "250")]
)
def test_milliseconds_have_three_digits(value: float | None, text: str) -> None:
    assert table.ms(value) == text
