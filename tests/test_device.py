"""Devices and boards: shipped facts, the search for a board, and what this machine is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekit import resources
from edgekit.cli import app
from edgekit.device import Device, describe, detect, known, load, machine, open_board
from edgekit.errors import InputError

MINIMAL = """\
schema: edgekit.device/1
name: {name}
description: a test device
arch: aarch64
link: local
runtimes:
  onnxruntime: {{precisions: [float32, int8]}}
"""


@pytest.fixture(autouse=True)
def no_user_boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "edgekit" / "devices"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", sorted(resources.devices()))
def test_a_shipped_device_obeys_its_schema_and_its_name_is_its_file(name: str) -> None:
    path = resources.devices()[name]
    assert load(Device, path).name == name


def test_the_usual_boards_are_shipped() -> None:
    jetsons = {name for name in resources.devices() if name.startswith("jetson-")}
    assert len(jetsons) == 9
    others = {"raspberry-pi-4", "raspberry-pi-5", "nvidia-t4", "nvidia-l4", "rtx-4090", "x86-cpu"}
    assert jetsons | others <= set(resources.devices())


def test_the_local_machine_is_a_board_by_itself(tmp_path: Path) -> None:
    board = open_board("x86-cpu", folder=tmp_path)
    assert (board.name, board.device.name, board.link) == ("x86-cpu", "x86-cpu", "local")


def test_a_number_without_a_source_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.yaml", MINIMAL.format(name="x") + "facts: {memory_gb: {value: 8}}\n")
    with pytest.raises(InputError, match=r"x\.yaml.*facts\.memory_gb: a value needs a source"):
        open_board("x.yaml", folder=tmp_path)


def test_a_source_that_is_cited_but_not_listed_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.yaml", MINIMAL.format(name="x") + "facts: {memory_gb: {value: 8, source: [S1]}}\n")
    with pytest.raises(InputError, match="S1 cited but not listed"):
        open_board("x.yaml", folder=tmp_path)


def test_an_unknown_value_is_null_and_stays_none() -> None:
    path = resources.devices()["jetson-orin-nano-8gb"]
    assert load(Device, path).facts["trip_temperature_c"].value is None


def test_every_wrong_field_is_named_at_once(tmp_path: Path) -> None:
    text = MINIMAL.format(name="x").replace("aarch64", "riscv") + "colour: red\n"
    write(tmp_path / "x.yaml", text)
    with pytest.raises(InputError) as caught:
        open_board("x.yaml", folder=tmp_path)
    assert "x.yaml:4:7 arch" in caught.value.what
    assert "x.yaml:8:1 colour" in caught.value.what


def test_a_board_of_the_working_folder_hides_the_users_and_the_users_hides_the_shipped(
    tmp_path: Path, no_user_boards: Path
) -> None:
    write(no_user_boards / "x86-cpu.yaml", MINIMAL.format(name="from-user"))
    assert open_board("x86-cpu", folder=tmp_path).name == "from-user"
    write(tmp_path / "devices" / "x86-cpu.yaml", MINIMAL.format(name="from-folder"))
    assert open_board("x86-cpu", folder=tmp_path).name == "from-folder"


def test_a_board_behind_ssh_is_its_base_device_and_a_link(tmp_path: Path) -> None:
    write(tmp_path / "devices" / "my-pi.yaml", "{base: raspberry-pi-5, link: {ssh: pi@10.0.0.7, port: 2222}}")
    board = open_board("my-pi", folder=tmp_path)
    assert (board.name, board.device.name, board.link) == ("my-pi", "raspberry-pi-5", "ssh")
    assert board.link_settings == {"host": "pi@10.0.0.7", "port": 2222, "python": "python3"}


def test_a_power_mode_goes_to_the_board_by_its_name(tmp_path: Path) -> None:
    text = "{base: jetson-orin-nano-8gb, link: {ssh: nano}, power_mode: MAXN_SUPER}"
    write(tmp_path / "devices" / "nano.yaml", text)
    assert open_board("nano", folder=tmp_path).link_settings["power_mode"] == "MAXN_SUPER"


def test_a_power_mode_of_this_machine_is_refused_since_it_would_not_be_set(tmp_path: Path) -> None:
    write(tmp_path / "devices" / "here.yaml", "{base: x86-cpu, link: local, power_mode: MAXN}")
    with pytest.raises(InputError, match="power_mode: is set over ssh"):
        open_board("here", folder=tmp_path)


def test_a_host_that_ssh_would_read_as_an_option_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "devices" / "my-pi.yaml", "{base: raspberry-pi-5, link: {ssh: '-oProxyCommand=touch x'}}")
    with pytest.raises(InputError, match="ssh"):
        open_board("my-pi", folder=tmp_path)


def test_an_unknown_board_brings_the_name_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'x86-cpu'"):
        open_board("x86-cpuu", folder=tmp_path)


def test_a_kind_of_device_is_no_board_and_the_error_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_board("raspberry-pi-5", folder=tmp_path)
    assert "{base: raspberry-pi-5, link: {ssh: user@host}}" in str(caught.value)


def test_an_unknown_base_is_an_error_of_the_board_file(tmp_path: Path) -> None:
    write(tmp_path / "devices" / "b.yaml", "{base: raspbery-pi-5, link: local}")
    with pytest.raises(InputError, match=r"b\.yaml: base.*Did you mean 'raspberry-pi-5'"):
        open_board("b", folder=tmp_path)


def test_a_duplicate_key_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "devices" / "b.yaml", "base: x86-cpu\nbase: raspberry-pi-5\nlink: local\n")
    with pytest.raises(InputError, match=r"b\.yaml:2:1"):
        open_board("b", folder=tmp_path)


def test_bf16_is_offered_only_where_the_instruction_set_has_it(tmp_path: Path) -> None:
    x86 = open_board("x86-cpu", folder=tmp_path).device
    assert x86.precisions("openvino", ["avx2"]) == ("float32", "int8")
    assert x86.precisions("openvino", ["avx2", "avx512_bf16"]) == ("float32", "bf16", "int8")
    assert x86.precisions("openvino", ["amx_bf16"]) == ("float32", "bf16", "int8")


def test_a_runtime_the_device_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="x86-cpu has no runtime 'openvin'"):
        open_board("x86-cpu", folder=tmp_path).precisions("openvin")


def test_an_unknown_alignment_leaves_channels_free(tmp_path: Path) -> None:
    write(tmp_path / "x.yaml", MINIMAL.format(name="x"))
    assert open_board("x.yaml", folder=tmp_path).device.channel_multiple("int8") == 1
    assert open_board("x86-cpu", folder=tmp_path).device.channel_multiple("int8") == 16


def test_detect_reads_instruction_sets_in_arms_spelling_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cpuinfo", lambda: {"flags": "fp asimd asimddp crc32"})
    found = detect()
    assert found["instruction_sets"] == ["asimddp"]
    assert found["cores"] >= 1
    assert "onnxruntime" in found["runtimes"]


def test_devices_are_read_without_torch_or_numpy() -> None:
    code = "import sys; from edgekit.device import open_board; open_board('x86-cpu');"
    code += "print({'torch', 'numpy', 'onnxruntime'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_an_installed_wheel_reads_what_the_build_put_into_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "devices" / "only.yaml", MINIMAL.format(name="only"))
    monkeypatch.setattr(resources, "_INSTALLED", tmp_path)
    assert list(resources.devices()) == ["only"]


def test_every_known_name_is_listed_with_how_it_is_reached_even_a_broken_one(
    tmp_path: Path, no_user_boards: Path
) -> None:
    write(no_user_boards / "my-pi.yaml", "{base: raspberry-pi-5, link: {ssh: pi@10.0.0.7}}")
    write(no_user_boards / "broken.yaml", "{base: raspberry-pi-5, lnk: local}")
    told = known(tmp_path)
    assert told["x86-cpu"].endswith("(a board by itself)")
    assert told["raspberry-pi-5"].endswith("(a kind of device: write a board file to reach yours)")
    assert told["my-pi"].startswith("board: raspberry-pi-5, link ssh pi@10.0.0.7")
    assert told["broken"].startswith("cannot be read: ")


def test_a_board_is_described_by_its_device_and_its_link(tmp_path: Path, no_user_boards: Path) -> None:
    write(no_user_boards / "my-pi.yaml", "{base: raspberry-pi-5, link: {ssh: pi@10.0.0.7}}")
    told = describe("my-pi", folder=tmp_path)
    assert (told["board"], told["link"], told["host"], told["name"]) == (
        "my-pi",
        "ssh",
        "pi@10.0.0.7",
        "raspberry-pi-5",
    )
    assert describe("raspberry-pi-5", folder=tmp_path)["schema"] == "edgekit.device/1"
    with pytest.raises(InputError, match="Did you mean 'raspberry-pi-5'"):
        describe("raspberry-pi-6", folder=tmp_path)


def test_the_devices_commands_give_json_and_text() -> None:
    for words, key in ((["list"], "x86-cpu"), (["show", "x86-cpu"], "runtimes"), (["detect"], "instruction_sets")):
        assert key in json.loads(CliRunner().invoke(app, ["devices", *words, "--json"]).stdout)
        assert key in CliRunner().invoke(app, ["devices", *words]).stdout
