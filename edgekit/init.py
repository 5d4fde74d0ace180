"""A commented recipe to begin with, written from a template. Nothing that exists is overwritten.

A template is a recipe that reads as it stands (recipes/templates/); the user's folders and number of classes replace
those it names.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from edgekit import resources
from edgekit.errors import UsageError, did_you_mean
from edgekit.recipe import schema

DEFAULT = "classification"
SCHEMA_FILE = "recipe.schema.json"
# The Python files a template brings along; the others name the user's own.
COMPANIONS = {"classification": ("network.py",)}
PLAIN = re.compile(r"[\w./-]+", re.ASCII)  # what YAML reads as text without quotes


@dataclass(frozen=True)
class Answers:
    """train, test: folders of images as the user names them, from the working folder; None leaves the template's."""

    train: Path | None = None
    test: Path | None = None


def init(path: Path, template: str = DEFAULT, answers: Answers = Answers()) -> list[Path]:
    """Writes the recipe, the Python files it comes with, and the schema for editors. Gives what was written.

    Raises:
        UsageError: there is no such template, or a file is there already; then nothing is written.
    """
    known = resources.templates()
    if template not in known:
        raise UsageError(f"--template: no template is called '{template}'." + did_you_mean(template, known))
    source = known[template]
    files = {path: _filled(source.read_text(), path, answers)}
    files |= {path.parent / name: (source.parent / name).read_text() for name in COMPANIONS.get(template, ())}
    there = [file for file in files if file.exists()]
    if there:
        raise UsageError(f"{there[0]}: exists already", next="give another PATH: edgekit init folder/recipe.yaml")
    editors = path.parent / SCHEMA_FILE
    if not editors.exists():  # another recipe's, which serves this one too
        files[editors] = json.dumps(schema(), indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        file.write_text(text)
    return list(files)


def _filled(text: str, path: Path, answers: Answers) -> str:
    """The template with the user's folders, as seen from the recipe, and as many classes as there are folders."""
    for part in ("train", "test"):
        folder: Path | None = getattr(answers, part)
        if folder is not None:
            text = text.replace(f"{part}: data/{part}", f"{part}: {_quoted(os.path.relpath(folder, path.parent))}")
    text = text.replace(" recipe.yaml\n", f" {path.name}\n")
    train = answers.train or path.parent / "data" / "train"
    classes = len([entry for entry in train.iterdir() if entry.is_dir()]) if train.is_dir() else 0
    return re.sub(r"(?m)^(  classes: )\d+$", rf"\g<1>{classes}", text) if classes else text


def _quoted(text: str) -> str:
    return text if PLAIN.fullmatch(text) else json.dumps(text)
