"""The only reader of what edgekit ships besides code: device files and recipes.

In a checkout they stand in the top-level folders `devices/` and `recipes/`; in an installed wheel the build backend has
put them under `edgekit/_resources/`.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
_INSTALLED = _PACKAGE / "_resources"


def devices() -> dict[str, Path]:
    """Shipped device files by name."""
    return _files("devices")


def recipes() -> dict[str, Path]:
    """Shipped recipes by name."""
    return _files("recipes")


def templates() -> dict[str, Path]:
    """Recipes that `edgekit init` begins with, by name."""
    return _files("recipes/templates")


def recipe_folder() -> Path:
    """Where the shipped recipes stand, together with the Python files they name (`python:networks.py:teacher`)."""
    return _folder("recipes")


def _files(kind: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted(_folder(kind).glob("*.yaml"))}


def _folder(kind: str) -> Path:
    return (_INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent) / kind
