"""Functions of the user's own files: `python:file.py:function`, the file's path relative to the recipe's folder."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from edgekit.errors import InputError


def call(source: str, folder: Path, *, field: str, **offered: Any) -> Any:
    """What the function that a source names returns; of `offered` it is given what it takes by name.

    field: of the recipe, where the messages begin (`model.source`).

    Raises:
        InputError: the file or the function is missing, or one of them failed.
    """
    file, _, name = source.removeprefix("python:").rpartition(":")
    path = folder / file
    if not file or not path.is_file():
        raise InputError(f"{field}: {path}: not found", next="write `python:file.py:function`, file beside the recipe")
    try:
        function = getattr(_import(path), name, None)
        if callable(function):
            taken = inspect.signature(function).parameters
            return function(**{key: value for key, value in offered.items() if key in taken})
    except Exception as error:  # the user's code raises whatever it likes
        raise InputError(f"{field}: {source} failed", why=f"{type(error).__name__}: {error}") from error
    raise InputError(f"{field}: {path}: has no function '{name}'", next=f"define `def {name}():` there")


def _import(path: Path) -> ModuleType:
    """The file as a module, under a name that shadows no other; dataclasses look themselves up in sys.modules."""
    name = "edgekit_user_" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
