"""Name -> module in a folder: `prune` means edgekit/stages/prune.py. The only import by name in edgekit."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import List

from edgekit.errors import InputError, did_you_mean


def find(folder: str, name: str) -> ModuleType:
    """The module `edgekit.<folder>.<name>`.

    Raises:
        InputError: no file of that name stands in the folder.
    """
    known = names(folder)
    if name not in known:
        raise InputError(f"no {folder[:-1]} is called '{name}'." + did_you_mean(name, known))
    return importlib.import_module(f"edgekit.{folder}.{name}")


def names(folder: str) -> List[str]:
    """The modules of a folder, sorted. Reads the folder (or the zip on a board) without importing its files."""
    package = importlib.import_module(f"edgekit.{folder}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))
