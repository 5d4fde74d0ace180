"""The YAML reader: YAML 1.2 values, places, and the limits that keep hostile files cheap."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path

import pytest

from edgekit.errors import RecipeError
from edgekit.yaml_reader import MAX_DEPTH, MAX_LINE, MAX_NODES, Place, parse_yaml, read_yaml


def refusal(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, "f")
    return str(caught.value)


def refused_file(path: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        read_yaml(path)
    return str(caught.value).replace(str(path), "f")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("no", "no"),
        ("yes", "yes"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        (".5", 0.5),
        ("-.INF", -math.inf),
        ("12345678901234567890", 1.2345678901234567e19),
        ("~", None),
        ("True", True),
        ("'true'", "true"),
        ('"\\u00e9"', "\u00e9"),
        ("|\n  a\n  b", "a\nb"),
    ],
)
def test_words_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    read = parse_yaml(f"key: {text}", "f").root.plain()["key"]
    assert (type(read), read) == (type(value), value)


def test_not_a_number_is_read_as_such() -> None:
    assert math.isnan(parse_yaml(".nan", "f").root.plain())


def test_every_value_knows_its_place_and_its_keys() -> None:
    node = parse_yaml("a:\n  b: [1,\n    22]\n", "f").root.get("a", "b")
    assert node is not None
    assert isinstance(node.value, list)
    assert (node.key, node.place) == (Place("f", 2, 3), Place("f", 2, 6))
    assert node.value[1].place == Place("f", 3, 5)


def test_an_empty_value_stands_at_its_key() -> None:
    node = parse_yaml("a:\n\n\nb: 1", "f").root.get("a")
    assert node is not None
    assert (node.value, node.place) == (None, Place("f", 1, 1))


def test_nesting_is_read_down_to_the_limit_and_refused_below() -> None:
    parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, "f")
    assert refusal("[" * (MAX_DEPTH + 2)) == f"f:1:{MAX_DEPTH + 2}: nested deeper than 50 levels"


def test_values_are_counted() -> None:
    parse_yaml("- a\n" * (MAX_NODES - 1), "f")  # the list itself is one
    assert refusal("- a\n" * MAX_NODES) == f"f:{MAX_NODES}:3: more than 5,000 values"


@pytest.mark.parametrize(
    "text",
    ["[", "- ", "? ", "{a: ", "a: b\n", "x", "\n", "'", "#", "1", "&a ", "[a,\n", "!", "- !", "? a\n", "|\n "],
)
def test_a_hostile_megabyte_is_cheap(text: str) -> None:
    """On one line, and on lines as long as they may be. Processor time, because other tests run beside this one."""
    line = text * (MAX_LINE // len(text) - 1)
    for bomb in (text * (10**6 // len(text)), (line + "\n") * (10**6 // MAX_LINE)):
        begun = time.process_time()
        with contextlib.suppress(RecipeError):
            parse_yaml(bomb, "f")
        assert time.process_time() - begun < 3  # 0.0 to 0.6 measured


def test_the_laughing_bomb_does_not_expand() -> None:
    bomb = "a0: &a0 ha\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20))
    document = parse_yaml(bomb, "f")
    assert len(document.problems) == 20 + 19 * 9  # each anchor and each alias is told, none followed
    assert document.root.plain()["a19"] == [None] * 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: \x07", "f:1:4: control character U+0007; save it as plain text"),
        ("a: b\nc: \u2028", "f:2:4: control character U+2028; save it as plain text"),
        ('a: "\\0"', "f:1:4: control character in quoted text"),
        ('a: "\\ud800"', "f:1:4: control character in quoted text"),
        ('"a\\nb": 1', "f:1:1: a key must be a plain word"),
        ("k" * 101 + ": 1", "f:1:1: a key must be a plain word"),
        ("x: 1\ny: " + "x" * 9998, "f:2:10000: a line longer than 10,000 characters"),
        ("a: " + "x" * 4001, "f:1:4: a text longer than 4,000 characters"),
        ("a: @x", "f:1:4: a text cannot begin with this character; put it in quotes"),
        ("a: 'x", "f:1:6: the file ends inside a quoted text"),
        ("a: {b: 1", "f:1:9: the file ends inside a bracket"),
    ],
)
def test_text_that_is_no_recipe_is_refused_at_its_place(text: str, message: str) -> None:
    assert refusal(text) == message


def test_a_file_that_cannot_be_a_recipe_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    big, latin, gone = tmp_path / "big.yaml", tmp_path / "latin.yaml", tmp_path / "gone.yaml"
    big.write_bytes(b"# " + b"x" * 1_000_000)
    latin.write_bytes("a: 1\nb: caf\u00e9".encode("latin-1"))
    assert refused_file(big) == "f: larger than 1 MB; a recipe has a few kilobytes"
    assert refused_file(latin) == "f:2:7: not UTF-8 text; save the file as UTF-8"
    assert refused_file(gone) == "f: no such file"
    assert refused_file(tmp_path) == "f: is a folder; name the recipe file in it"
    assert refused_file(tmp_path / "x\0y").endswith("cannot be read: embedded null byte")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "windows.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_yaml(tmp_path / "windows.yaml").root.plain() == {"a": 1, "b": 2}
