"""report.json: everything, for programs. `edgekit compare` reads it back."""

from __future__ import annotations

import json

from edgekit.report.record import Report


def render(report: Report) -> str:
    return json.dumps(report.as_dict(), indent=1, allow_nan=False) + "\n"
