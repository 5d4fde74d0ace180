"""The report of a run: one record, one file per format. A new format is one new file and one line here."""

from __future__ import annotations

import json as stdlib_json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgekit.errors import InputError
from edgekit.ledger import Ledger
from edgekit.report import html, json, markdown
from edgekit.report.record import Report
from edgekit.verdict import Verdict

FORMATS: dict[str, Callable[[Report], str]] = {
    "report.json": json.render,
    "report.md": markdown.render,
    "report.html": html.render,
}


def write(folder: Path, ledger: Ledger, verdict: Verdict, facts: Mapping[str, Any]) -> Report:
    """Writes every format into the folder; facts as in Report."""
    report = Report(ledger, verdict, facts)
    for name, render in FORMATS.items():
        (folder / name).write_text(render(report), encoding="utf-8")
    return report


def read(path: Path) -> Report:
    """The report in a run folder, or in a report.json.

    Raises:
        InputError: there is none, or it is not one of ours.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        return Report.from_dict(stdlib_json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"{file}: no report here", next="give a run folder that has finished") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: this is not a report of edgekit", why=str(error)) from error
