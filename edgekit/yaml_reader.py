"""YAML 1.2 as data, where every value remembers where it stands (core schema: yaml.org/spec/1.2.2, chapter 10.3).

Read from parser events into a tree of Nodes, with limits checked on the way: size, depth, number of values. Anchors,
aliases and tags are refused, so that nothing can be expanded, shared or constructed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from edgekit.errors import Problem, RecipeError

CORE = "tag:yaml.org,2002:"
MAX_BYTES = 1_000_000
MAX_DEPTH = 50
MAX_KEY = 100
MAX_DIGITS = 18  # fits 64 bits; a longer number is a float
MAX_LINE = 10_000  # a tag of a megabyte takes the parser seconds
MAX_TEXT = 4_000
MAX_NODES = 5_000  # a quarter of a second to read; a long recipe has 300

# What an editor does not show, or counts as a line when YAML does not: places would be wrong.
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {"": None, "~": None, "true": True, "false": False} | dict.fromkeys(
    ("null", "Null", "NULL")
)
_WORDS |= {"True": True, "TRUE": True, "False": False, "FALSE": False}


_SYNTAX = {  # words of the parser -> what they mean to the one who writes
    "'\\t'": "a tab cannot indent; use spaces",
    "<block end>": "the indentation does not fit the lines above",
    "mapping values are not allowed": "a second `: ` in one value, or wrong indentation; quote a text that holds `: `",
    "could not find expected ':'": "a key without its `:`",
    "cannot start any token": "a text cannot begin with this character; put it in quotes",
    "unexpected end of stream": "the file ends inside a quoted text",
    "but found '<stream end>'": "the file ends inside a bracket",
    "but got '<stream end>'": "the file ends inside a bracket",
    "expected ',' or": "a bracket is left open, or a comma is missing",
}


class Place(NamedTuple):
    """line and column count from 1; line 0 means that the value does not stand in a file."""

    file: str
    line: int
    column: int


@dataclass
class Node:
    """A value and its place; `key` is the place of the mapping key before it (or its own, where there is none)."""

    value: bool | int | float | str | list[Node] | dict[str, Node] | None
    place: Place
    key: Place

    def plain(self) -> Any:
        """The value as ordinary lists, dicts and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value

    def get(self, *path: str) -> Node | None:
        """The node at a path of mapping keys, None where there is none."""
        node: Node | None = self
        for key in path:
            node = node.value.get(key) if node is not None and isinstance(node.value, dict) else None
        return node


@dataclass
class Document:
    """A file's text and its tree; problems: mistakes that did not keep the rest from being read."""

    text: str
    root: Node
    problems: list[Problem] = field(default_factory=list)


def read_yaml(path: Path) -> Document:
    """Reads one YAML mapping from a file.

    Raises:
        RecipeError: the file cannot be read, is over a limit, or is not one YAML mapping.
    """
    document = parse_yaml(_text(path), str(path))
    root = document.root
    if root.value is None:
        raise _refuse(root.place, "the file is empty")
    if not isinstance(root.value, dict):
        raise _refuse(root.place, "expected a mapping (`key: value` lines) at the top of the file")
    return document


def parse_yaml(text: str, file: str) -> Document:
    """Reads YAML text of any shape; empty text is None.

    Raises:
        RecipeError: not YAML, or over a limit.
    """
    bad = _CONTROL.search(text)
    if bad:
        line, column = text.count("\n", 0, bad.start()) + 1, bad.start() - text.rfind("\n", 0, bad.start())
        raise _refuse(Place(file, line, column), f"control character U+{ord(bad.group()):04X}; save it as plain text")
    for number, row in enumerate(text.split("\n"), start=1):
        if len(row) > MAX_LINE:
            raise _refuse(Place(file, number, MAX_LINE), f"a line longer than {MAX_LINE:,} characters")
    reader = _Reader(file)
    try:
        return Document(text, reader.document(YAML(typ="safe", pure=True).parse(text)), reader.problems)
    except (YAMLError, ValueError) as error:
        raise _refuse(*_syntax(error, file, text)) from None


def scalar(text: str) -> bool | int | float | str | None:
    """A plain (unquoted) word by the YAML 1.2 core schema: `1e-3` is a number, `no` is text, `010` is ten."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) <= MAX_DIGITS:
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def join(field: str, *path: int | str) -> str:
    """`prune` + (`recover`, `epochs`) -> `prune.recover.epochs`; a list's entries are counted from 0: `size[1]`."""
    for part in path:
        field = f"{field}[{part}]" if isinstance(part, int) else f"{field}.{part}" if field else part
    return field


class _Reader:
    """Builds Nodes from parser events. Recursive, but never deeper than MAX_DEPTH."""

    def __init__(self, file: str):
        self.file = file
        self.problems: list[Problem] = []
        self.count = 0

    def document(self, events: Iterator[Event]) -> Node:
        root: Node | None = None
        for event in events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    raise _refuse(self.place(event), "a second document begins here; keep one recipe per file")
                if event.version not in (None, (1, 2)) or event.tags:
                    raise _refuse(self.place(event), "only YAML 1.2 without directives is read; remove the `%` line")
                root = self.node(next(events), events, 0, "")
        start = Place(self.file, 1, 1)
        return root or Node(None, start, start)

    def node(self, event: Event, events: Iterator[Event], depth: int, field: str, key: Place | None = None) -> Node:
        place = self.place(event)
        if key and isinstance(event, ScalarEvent) and not event.value and not event.style:
            place = key  # `epochs:` and nothing after it: the parser is lines ahead by now
        self.count += 1
        if depth > MAX_DEPTH:
            raise _refuse(place, f"nested deeper than {MAX_DEPTH} levels")
        if self.count > MAX_NODES:
            raise _refuse(place, f"more than {MAX_NODES:,} values")
        self.no_extras(event, place, field)
        if isinstance(event, MappingStartEvent):
            return Node(self.mapping(events, depth, field), place, key or place)
        if isinstance(event, SequenceStartEvent):
            entries = enumerate(_until(events, SequenceEndEvent))
            return Node([self.node(e, events, depth + 1, join(field, i)) for i, e in entries], place, key or place)
        return Node(self.scalar(event, place), place, key or place)

    def mapping(self, events: Iterator[Event], depth: int, field: str) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for event in _until(events, MappingEndEvent):
            place = self.place(event)
            key = event.value if isinstance(event, ScalarEvent) else ""
            if not key or len(key) > MAX_KEY or _CONTROL.search(key) or "\n" in key:
                raise _refuse(place, "a key must be a plain word")
            path = join(field, key)
            self.no_extras(event, place, path)
            node = self.node(next(events), events, depth + 1, path, place)
            if key in entries:
                self.report(place, path, f"written twice, first on line {entries[key].key.line}; keep one")
            entries.setdefault(key, node)
        return entries

    def scalar(self, event: Event, place: Place) -> bool | int | float | str | None:
        if not isinstance(event, ScalarEvent):
            return None
        if len(event.value) > MAX_TEXT:
            raise _refuse(place, f"a text longer than {MAX_TEXT:,} characters")
        if event.style is None:
            return scalar(event.value)
        if _CONTROL.search(event.value):
            raise _refuse(place, "control character in quoted text")
        return str(event.value)

    def no_extras(self, event: Event, place: Place, field: str) -> None:
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            self.report(place, field, "anchors (&) and aliases (*) are not read; write the value out")
        tag = getattr(event, "tag", None)
        if tag:
            self.report(place, field, f"tags are not read; remove `{str(tag).replace(CORE, '!!')}`")

    def place(self, event: Event) -> Place:
        return Place(self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def report(self, place: Place, field: str, message: str) -> None:
        self.problems.append(Problem(*place, field, message))


def _until(events: Iterator[Event], end: type[Event]) -> Iterator[Event]:
    for event in events:
        if isinstance(event, end):
            return
        yield event


def _text(path: Path) -> str:
    """The file's text, after the checks that need no parser."""
    place = Place(str(path), 0, 0)
    try:
        with open(path, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise _refuse(place, "is a folder; name the recipe file in it") from None
    except FileNotFoundError:
        raise _refuse(place, "no such file") from None
    except (OSError, ValueError) as error:
        raise _refuse(place, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_BYTES:
        raise _refuse(place, "larger than 1 MB; a recipe has a few kilobytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise _refuse(Place(str(path), line, column), "not UTF-8 text; save the file as UTF-8") from None


def _syntax(error: Exception, file: str, text: str) -> tuple[Place, str]:
    """ruamel's complaint as a place and one line."""
    mark = error.problem_mark or error.context_mark if isinstance(error, MarkedYAMLError) else None
    if not isinstance(error, MarkedYAMLError) or mark is None:
        return Place(file, 1, 1), f"not YAML: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    problem = str(error.problem or error.context)
    plain = next((sentence for words, sentence in _SYNTAX.items() if words in problem), f"not YAML: {problem}")
    return Place(file, mark.line + 1, mark.column + 1), plain


def _refuse(place: Place, message: str) -> RecipeError:
    return RecipeError([Problem(*place, "", message)])
