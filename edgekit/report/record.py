"""What every format is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekit import __version__
from edgekit.errors import InputError
from edgekit.ledger import Final, Ledger
from edgekit.verdict import Verdict

SCHEMA = "edgekit.report/1"


@dataclass(frozen=True)
class Report:
    """facts: JSON values, all of them optional: `name` of the recipe, `goal` (its settings), `command`, `started`,
    `seconds`, `machine` (device.detect), `versions`, `files` (what stands where), `notes` (sentences).
    """

    ledger: Ledger
    verdict: Verdict
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.facts.get("name", "edgekit run"))

    @property
    def notes(self) -> list[str]:
        """Everything a reader should know before trusting a number: choices, doubts, what was left out."""
        said = [str(note) for note in self.facts.get("notes", ())]
        said += [f"{row.step}: {note}" for row in self.ledger.rows for note in row.notes]
        for final in self.ledger.finals:
            said += [f"{final.name} on {final.board} is {final.state}: {reason}" for reason in final.reasons]
        said += [note for choice in self.verdict.boards for note in choice.notes]
        return list(dict.fromkeys(said))

    def shipped(self, final: Final) -> bool:
        """Whether this is what the verdict ships on its board."""
        return any(choice.board == final.board and choice.ship == final.name for choice in self.verdict.boards)

    def as_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "edgekit": __version__,
            "facts": dict(self.facts),
            "verdict": self.verdict.as_dict(),
            "ledger": self.ledger.as_dict(),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Report:
        """Raises: InputError: another schema."""
        if record.get("schema") != SCHEMA:
            raise InputError(f"expected a report of schema {SCHEMA}, found {record.get('schema')!r}")
        return cls(Ledger.from_dict(record["ledger"]), Verdict.from_dict(record["verdict"]), record["facts"])
