"""The agent: what a board runs, as one zip with the same bytes wherever it is made.

It holds the import closure of `edgekit.bench` and of every runtime (found by name there), followed in the source, so
that nothing is imported here for it.
"""

from __future__ import annotations

import ast
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import edgekit

_PACKAGE = Path(edgekit.__file__).parent
_ENTRIES = ("edgekit.bench.__main__", "edgekit.bench.hold")
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


def agent_zip() -> bytes:
    """The zip; put on PYTHONPATH it is a package: `python3 -m edgekit.bench`."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        for name, path in sorted(closure().items()):
            archived = path.relative_to(_PACKAGE.parent).as_posix()
            archive.writestr(zipfile.ZipInfo(archived, _DATE), path.read_bytes())
            assert path.suffix == ".py", name
    return written.getvalue()


def closure() -> dict[str, Path]:
    """Module name -> file, of everything of edgekit that a board needs."""
    found: dict[str, Path] = {}
    waiting = [*_ENTRIES, *(f"edgekit.runtimes.{path.stem}" for path in (_PACKAGE / "runtimes").glob("[a-z]*.py"))]
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is None or name in found:
            continue
        found[name] = path
        waiting += [*imported(path), *_parents(name)]
    return found


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or in a function, but not for its types alone."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)  # a module, or a name that is none
        waiting += ast.iter_child_nodes(node)


def _file(name: str) -> Path | None:
    """The file of a module of edgekit; None where the name is something else."""
    if name.partition(".")[0] != "edgekit":
        return None
    stem = _PACKAGE.parent.joinpath(*name.split("."))
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)


def _parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts)))
