"""Device: shipped hardware facts, one YAML each. Board: the user's own device, and how to reach it.

A device file states nothing it has no source for: every number carries one, and what is unknown is null. A board is a
small file `{base: jetson-orin-nano-8gb, link: {ssh: user@host}}`; a device with `link: local` is a board by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from edgekit import resources
from edgekit.device.machine import detect
from edgekit.errors import InputError, RecipeError, did_you_mean
from edgekit.settings import Count, Settings
from edgekit.validate import validate
from edgekit.yaml_reader import read_yaml

__all__ = ["Board", "Device", "Precision", "boards", "describe", "detect", "known", "load", "open_board"]

Precision = Literal["float32", "float16", "bf16", "int8"]
Record = TypeVar("Record", bound=Settings)


class Source(Settings):
    """Where a fact comes from. checked: read in the vendor's own document; other numbers stay out of reports."""

    what: str
    checked: bool = False


class Fact(Settings):
    """A number or word about the hardware with the sources that state it; an unknown value is null and has none."""

    value: float | int | str | bool | list[float | int | str] | dict[str, float | int | str] | None
    source: list[str] = Field(default_factory=list)
    note: str | None = None


class RuntimeFacts(Settings):
    """precisions: what the runtime executes on this device. needs: precision -> instruction sets, one of which the
    processor must have.
    """

    precisions: Annotated[list[Precision], Field(min_length=1)]
    needs: dict[Precision, list[str]] = Field(default_factory=dict)
    note: str | None = None


class Alignment(Settings):
    """channels: by precision, the number that channel counts should be a multiple of."""

    channels: dict[Precision, Count]
    source: Annotated[list[str], Field(min_length=1)]


class Power(Settings):
    """modes: names, never ids (the same id means another mode on another board). total_rail: rails whose sum is the
    whole module; empty where power cannot be read.
    """

    modes: list[str] = Field(default_factory=list)
    total_rail: list[str] = Field(default_factory=list)
    source: list[str] = Field(default_factory=list)


class Device(Settings):
    """Facts of one kind of device, as shipped in `devices/<name>.yaml`.

    facts: keys carry their unit (`memory_gb`, `bandwidth_gb_s`). telemetry: what can be read while it works.
    """

    schema_: Literal["edgekit.device/1"] = Field(alias="schema")
    name: str
    description: str
    arch: Literal["x86_64", "aarch64"]
    link: Literal["local"] | None = None
    runtimes: dict[str, RuntimeFacts]
    alignment: Alignment | None = None
    facts: dict[str, Fact] = Field(default_factory=dict)
    power: Power = Power()
    telemetry: list[str] = Field(default_factory=list)
    sources: dict[str, Source] = Field(default_factory=dict)

    @model_validator(mode="after")
    def every_number_has_a_source(self) -> Device:
        for name, fact in self.facts.items():
            if (fact.value is None) == bool(fact.source):
                raise ValueError(f"facts.{name}: a value needs a source, and an unknown value (null) has none")
        if (self.power.modes or self.power.total_rail) and not self.power.source:
            raise ValueError("power: modes and rails need a source")
        unknown = sorted(set(self.cited()) - set(self.sources))
        if unknown:
            raise ValueError(f"sources: {', '.join(unknown)} cited but not listed")
        return self

    def cited(self) -> list[str]:
        """Every source id that a fact names."""
        ids = [source for fact in self.facts.values() for source in fact.source]
        return ids + self.power.source + (self.alignment.source if self.alignment else [])

    def precisions(self, runtime: str, instruction_sets: Iterable[str] = ()) -> tuple[str, ...]:
        """What `runtime` executes here, in the file's order.

        instruction_sets: of the processor, as `detect` names them; a precision that needs one it lacks is left out.

        Raises:
            InputError: the device has no such runtime.
        """
        if runtime not in self.runtimes:
            raise InputError(f"{self.name} has no runtime '{runtime}'." + did_you_mean(runtime, self.runtimes))
        facts = self.runtimes[runtime]
        have = set(instruction_sets)
        return tuple(p for p in facts.precisions if p not in facts.needs or have & set(facts.needs[p]))

    def channel_multiple(self, precision: str) -> int:
        """Channel counts of a pruned layer are kept to a multiple of this; 1 where nothing is known."""
        by_precision: Mapping[Any, int] = self.alignment.channels if self.alignment else {}
        return by_precision.get(precision, 1)


class SshSettings(Settings):
    """ssh: user@host. python: the interpreter there."""

    ssh: Annotated[str, Field(pattern=r"^[^-\s][^\s]*$")]
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    python: str = "python3"


class BoardFile(Settings):
    """What a user writes: the shipped device it is, and how to reach it."""

    base: str
    link: Literal["local"] | SshSettings
    power_mode: str | None = None

    @model_validator(mode="after")
    def a_power_mode_can_be_set(self) -> BoardFile:
        if self.power_mode is not None and self.link == "local":
            raise ValueError("power_mode: is set over ssh; set it yourself on this machine, and leave it out here")
        return self


@dataclass(frozen=True)
class Board:
    """A device of the user's own. link: `local` or `ssh`; link_settings: what that link needs (host, port, python)."""

    name: str
    device: Device
    link: str = "local"
    link_settings: Mapping[str, Any] = field(default_factory=dict)
    power_mode: str | None = None

    def precisions(self, runtime: str) -> tuple[str, ...]:
        """What `runtime` executes on this very board; behind a link, what every device of the kind does."""
        have = detect()["instruction_sets"] if self.link == "local" else []
        return self.device.precisions(runtime, have)


def open_board(name: str, *, folder: Path | None = None) -> Board:
    """The board called `name`: a path, else `devices/` in `folder` (the working folder), else the user's, else shipped.

    Raises:
        InputError: no such board, or its file is wrong; the message says where and what to write.
    """
    known = boards(folder)
    path = known.get(name) or _as_path(name, folder)
    if path is None:
        raise InputError(
            f"no board is called '{name}'." + did_you_mean(name, known),
            next=f"write devices/{name}.yaml: {{base: {next(iter(resources.devices()), 'x86-cpu')}, link: local}}",
        )
    if "base" not in _keys(path):
        return _itself(load(Device, path), path)
    board = load(BoardFile, path)
    device = _shipped(board.base, path)
    if isinstance(board.link, str):
        return Board(path.stem, device, power_mode=board.power_mode)
    settings = {"host": board.link.ssh, "port": board.link.port, "python": board.link.python}
    mode = {} if board.power_mode is None else {"power_mode": board.power_mode}
    return Board(path.stem, device, "ssh", {**settings, **mode}, board.power_mode)


def boards(folder: Path | None = None) -> dict[str, Path]:
    """Every device and board file that a name can mean; a nearer one hides a farther one."""
    found = dict(resources.devices())
    for place in (config_folder(), (folder or Path.cwd()) / "devices"):
        found.update({path.stem: path for path in sorted(place.glob("*.yaml"))})
    return found


def known(folder: Path | None = None) -> dict[str, str]:
    """Every name of `boards` with what it is and how it is reached; of a file that is wrong, its first mistake."""
    return {name: _in_words(path) for name, path in boards(folder).items()}


def describe(name: str, *, folder: Path | None = None) -> dict[str, Any]:
    """A device's facts as JSON values; of a board its device's, with its link. Unknown values are None.

    Raises:
        InputError: there is no such name, or its file is wrong.
    """
    path = boards(folder).get(name) or _as_path(name, folder)
    if path is None or "base" in _keys(path):
        board = open_board(name, folder=folder)
        link = {"link": board.link, **board.link_settings, "power_mode": board.power_mode}
        return {"board": board.name, **link, **board.device.model_dump(mode="json", by_alias=True, exclude={"link"})}
    return load(Device, path).model_dump(mode="json", by_alias=True)


def config_folder() -> Path:
    """Where a user's boards stand: ~/.config/edgekit/devices."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "edgekit" / "devices"


def load(kind: type[Record], path: Path) -> Record:
    """A device or board file.

    Raises:
        RecipeError: every mistake at once, with line and column.
    """
    document = read_yaml(path)
    record, problems = validate(kind, document.root)
    if record is None or document.problems:
        raise RecipeError([*document.problems, *problems])
    return record


def _in_words(path: Path) -> str:
    try:
        if "base" in _keys(path):
            board = load(BoardFile, path)
            how = board.link if isinstance(board.link, str) else f"ssh {board.link.ssh}"
            return f"board: {board.base}, link {how} ({path})"
        device = load(Device, path)
    except InputError as error:
        return f"cannot be read: {error.what.splitlines()[0]}"
    reach = "a board by itself" if device.link else "a kind of device: write a board file to reach yours"
    return f"{device.description} ({reach})"


def _keys(path: Path) -> set[str]:
    value = read_yaml(path).root.value
    return set(value) if isinstance(value, dict) else set()


def _shipped(name: str, asked_by: Path) -> Device:
    """The shipped device that a board file names as its base."""
    files = resources.devices()
    if name not in files:
        raise InputError(f"{asked_by}: base: no device is called '{name}'." + did_you_mean(name, files))
    return load(Device, files[name])


def _itself(device: Device, path: Path) -> Board:
    if device.link is None:
        raise InputError(
            f"{device.name} is a kind of device, not a board that can be reached ({path.name}).",
            next=f"write devices/my-board.yaml: {{base: {device.name}, link: {{ssh: user@host}}}}",
        )
    return Board(device.name, device)


def _as_path(name: str, folder: Path | None) -> Path | None:
    """A name with a slash or a suffix is a path, relative to the folder of whoever named it."""
    path = (folder or Path.cwd()) / name
    return path if path.suffix in (".yaml", ".yml") and path.is_file() else None
