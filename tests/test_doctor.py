"""What doctor finds on machines that lack something, and that its commands exist."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from edgekit import doctor, errors
from edgekit.cli import app
from edgekit.doctor import Finding, examine
from edgekit.recipe import load_recipe
from edgekit.runtimes import openvino
from tests.tiny import RECIPE, write_recipe

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def named(found: doctor.Diagnosis, name: str) -> Finding:
    return next(one for one in found.findings if one.name == name)


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Versions of packages as the doctor will read them; None takes one away."""
    told: dict[str, str | None] = {}
    real = importlib.metadata.version

    def version(package: str) -> str:
        found = told.get(package, package)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(package)
        return real(package) if found == package else found

    monkeypatch.setattr(importlib.metadata, "version", version)
    return told


def test_this_machine_has_all_that_is_needed(tmp_path: Path) -> None:
    found = examine(tmp_path)
    assert [one for one in found.missing if one.name != "disk"] == []
    assert named(found, "torch").state == "ok"
    assert named(found, "processor").says


def test_a_package_that_is_not_installed_is_missing_with_the_command_that_installs_it(
    versions: dict[str, str | None], tmp_path: Path
) -> None:
    versions["torchao"] = None
    assert named(examine(tmp_path), "torchao") == Finding(
        "torchao", "missing", "not installed", "pip install 'torchao>=0.15'"
    )


def test_a_package_of_another_version_is_missing_with_the_versions_asked_for(
    versions: dict[str, str | None], tmp_path: Path
) -> None:
    versions["nncf"] = "3.0.0"
    found = named(examine(tmp_path), "nncf")
    assert (found.state, found.says) == ("missing", "3.0.0, edgekit needs <3.5,>=3.4")


def test_two_packages_of_onnxruntime_overwrite_each_other(versions: dict[str, str | None], tmp_path: Path) -> None:
    versions["onnxruntime-gpu"] = "1.27.0"
    found = named(examine(tmp_path), "onnxruntime packages")
    assert found.state == "doubt"
    assert found.next == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime"


def test_torch_and_torchvision_of_different_builds_do_not_fit(versions: dict[str, str | None], tmp_path: Path) -> None:
    versions |= {"torch": "2.13.0+cpu", "torchvision": "0.28.0"}
    found = named(examine(tmp_path), "torch and torchvision")
    assert (found.state, found.next) == ("doubt", "pip install --force-reinstall torch torchvision")
    versions["torchvision"] = "0.28.0+cpu"
    assert "torch and torchvision" not in [one.name for one in examine(tmp_path).findings]


def test_a_runtime_is_missing_only_for_the_recipe_that_needs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lost = "openvino is not installed: pip install 'edgekit[openvino]'"
    monkeypatch.setattr(openvino, "missing", lambda: lost)
    assert named(examine(tmp_path), "runtime openvino").state == "absent"
    here = write_recipe(tmp_path, RECIPE)
    assert named(examine(tmp_path, load_recipe(here)), "runtime openvino").state == "absent"
    there = write_recipe(tmp_path, RECIPE.replace("runtime: onnxruntime", "runtime: openvino"))
    assert named(examine(tmp_path, load_recipe(there)), "runtime openvino") == Finding(
        "runtime openvino", "missing", "openvino is not installed", "pip install 'edgekit[openvino]'"
    )


def test_what_the_named_recipe_lacks_ends_with_exit_code_4(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(openvino, "missing", lambda: "openvino is not installed: pip install 'edgekit[openvino]'")
    recipe = write_recipe(tmp_path, RECIPE.replace("runtime: onnxruntime", "runtime: openvino"))
    result = CliRunner().invoke(app, ["doctor", str(recipe), "--runs", str(tmp_path)])
    assert result.exit_code == errors.DependencyError.exit_code
    assert (
        "missing runtime openvino: openvino is not installed\n          pip install 'edgekit[openvino]'"
        in result.stdout
    )
    plain = CliRunner().invoke(app, ["doctor", "--runs", str(tmp_path), "--json"])
    assert plain.exit_code == 0, plain.output
    assert json.loads(plain.stdout)["schema"] == "edgekit.doctor/1"


def test_a_recipe_that_is_wrong_ends_with_exit_code_3(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, RECIPE.replace("version: 1", "version: 2"))
    assert CliRunner().invoke(app, ["doctor", str(recipe)]).exit_code == errors.RecipeError.exit_code


def test_the_processors_instruction_sets_are_said_with_what_they_mean() -> None:
    machine = {"cpu": "old", "cores": 2}
    best = doctor._instructions({**machine, "instruction_sets": ["avx2", "avx512_vnni", "amx_int8"]})
    assert (best.state, "AMX" in best.says) == ("ok", True)
    worst = doctor._instructions({**machine, "instruction_sets": ["avx2"]})
    assert (worst.state, "no int8 dot products" in worst.says) == ("doubt", True)
    assert doctor._instructions({**machine, "instruction_sets": []}).state == "doubt"


def test_memory_is_that_of_the_container(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 64000000 kB\nMemAvailable: 32000000 kB\n")
    assert doctor._memory(tmp_path).says == "32.8 GB available"  # 32e6 * 1024 bytes
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("2000000000\n")
    found = doctor._memory(tmp_path)
    assert (found.state, found.says) == ("doubt", "2.0 GB available")


def test_a_lock_that_a_killed_build_left_is_named_with_the_command_that_removes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lock = tmp_path / "py311_cpu" / "quantized_functions_cpu" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert named(examine(tmp_path / "runs"), "stale lock").next == f"rm '{lock}'"


def test_a_run_that_is_locked_is_at_work_and_one_that_ended_is_not(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".lock").touch()
    with FileLock(tmp_path / "one" / ".lock"):
        found = [one for one in examine(tmp_path).findings if one.name == "run at work"]
    assert [one.says for one in found] == [f"{tmp_path / 'one'} is locked by a process that is alive"]


def test_telemetry_that_is_on_is_doubted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert named(examine(tmp_path), "telemetry") == Finding(
        "telemetry", "doubt", "onnxruntime's is on", "export ORT_DISABLE_TELEMETRY=1"
    )


def test_the_answer_is_quick_and_imports_neither_torch_nor_a_runtime(tmp_path: Path) -> None:
    heavy = "{'torch', 'nncf', 'onnxruntime', 'openvino', 'torchvision', 'timm', 'onnx'}"
    code = f"import sys; from pathlib import Path; from edgekit.doctor import examine; examine(Path({str(tmp_path)!r}))"
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(sorted({heavy} & set(sys.modules)))"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert done.stdout.strip() == "[]"
    assert time.monotonic() - started < 20  # about one second on a quiet machine


def test_extras_are_those_of_the_project() -> None:
    assert set(doctor.EXTRAS) == set(PROJECT["optional-dependencies"]) - {"dev"}


def _commands() -> Iterator[str]:
    """Every command in edgekit's own messages: doctor's, and the `next` of every error."""
    for path in (ROOT / "edgekit").rglob("*.py"):
        text = path.read_text()
        yield from re.findall(r"pip install '?edgekit\[[\w-]+\]", text)
        yield from re.findall(r"`(edgekit [a-z]+)", text)
        yield from re.findall(r"next=f?\"(?:[^\"]*: )?(edgekit [a-z]+)", text)
        yield from re.findall(r"\"(edgekit [a-z]+) [A-Z-]", text)


def test_the_commands_that_are_printed_exist() -> None:
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    verbs |= {group.name for group in app.registered_groups if group.name}
    found = set(_commands())
    assert len(found) > 5
    for command in found:
        extra = re.search(r"\[([\w-]+)\]", command)
        if extra:
            assert extra[1] in PROJECT["optional-dependencies"], command
        else:
            assert command.split()[1] in verbs, command


def test_a_finding_that_is_not_right_names_a_command_that_can_be_run(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None], tmp_path: Path
) -> None:
    versions |= {"torch": None, "torchvision": None, "timm": None, "onnxruntime-gpu": "1.0"}
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    commands = [one.next for one in examine(tmp_path).findings if one.state != "ok" and one.next]
    assert len(commands) >= 7
    known = ("pip install ", "pip uninstall ", "apt-get install ", "edgekit ", "export ", "rm ", "python3.12 ")
    assert [one for one in commands if not one.startswith(known)] == []
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"  # looking changes nothing
