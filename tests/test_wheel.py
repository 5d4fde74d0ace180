"""What a stranger installs: the wheel, in an environment of its own, used from an empty folder."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the wheel; edgekit's dependencies are lent from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT))
    _run(sys.executable, "-m", "venv", str(folder / "env"))
    interpreter = folder / "env" / "bin" / "python"
    wheel = next(folder.glob("*.whl"))
    _run(str(interpreter), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    site = Path(_run(str(interpreter), "-c", "import site; print(site.getsitepackages()[0])").strip())
    (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return interpreter


def test_the_wheel_is_what_is_imported(python: Path, tmp_path: Path) -> None:
    where = _run(str(python), "-c", "import edgekit; print(edgekit.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(python.parents[1])


def test_the_shipped_recipe_is_read_and_rehearsed_from_an_empty_folder(python: Path, tmp_path: Path) -> None:
    edgekit = str(python.with_name("edgekit"))
    plan = json.loads(_run(edgekit, "plan", "quickstart", "--json", cwd=tmp_path))
    assert [step["step"] for step in plan["steps"]] == ["teacher", "student", "prune", "quantize"]
    assert list(tmp_path.iterdir()) == []


def test_shipped_devices_are_listed_from_an_empty_folder(python: Path, tmp_path: Path) -> None:
    assert "x86-cpu" in _run(str(python.with_name("edgekit")), "devices", "list", cwd=tmp_path)


def _run(*command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
