"""What goes to a board: only what runs there, in the oldest Python there, with the same bytes each time."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgekit.links.ssh.agent_zip import agent_zip, closure, imported

RUNTIMES = {"onnxruntime", "openvino", "tensorrt", "tensorrt_rtx_bindings"}
# preprocess: normalize_torch imports it when it is called, which is when training.
ALSO = {"runtimes": RUNTIMES, "engine": RUNTIMES, "preprocess": {"torch"}}


@pytest.mark.parametrize("name", sorted(closure()))
def test_a_module_for_boards_parses_as_python_3_8(name: str) -> None:
    ast.parse(closure()[name].read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize("name", sorted(closure()))
def test_a_module_for_boards_imports_the_standard_library_numpy_and_its_runtime_alone(name: str) -> None:
    outside = {module.partition(".")[0] for module in imported(closure()[name])} - set(sys.stdlib_module_names)
    assert outside <= {"edgekit", "numpy"} | ALSO.get(name.partition(".")[2].partition(".")[0], set())


def test_the_closure_holds_the_bench_and_every_runtime_and_nothing_that_trains() -> None:
    names = set(closure())
    assert {"edgekit.bench.agent", "edgekit.bench.hold", "edgekit.statistics", "edgekit.preprocess"} <= names
    assert {"edgekit.runtimes.onnxruntime", "edgekit.runtimes.openvino", "edgekit.runtimes.null"} <= names
    assert not {name for name in names if name.split(".")[1:2] in (["training"], ["recipe"], ["device"], ["links"])}


def test_the_zip_has_the_same_bytes_each_time() -> None:
    assert agent_zip() == agent_zip()


def test_the_zip_holds_the_files_of_the_closure_and_no_other() -> None:
    with zipfile.ZipFile(io.BytesIO(agent_zip())) as archive:
        held = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in archive.namelist()}
    assert held == set(closure())


def test_the_zip_runs_as_a_package_in_a_python_without_edgekit(tmp_path: Path) -> None:
    (tmp_path / "agent.zip").write_bytes(agent_zip())
    numpy_only = tmp_path / "site"
    numpy_only.mkdir()
    import numpy

    packages = Path(numpy.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        (numpy_only / name).symlink_to(packages / name)
    done = subprocess.run(
        [sys.executable, "-S", "-m", "edgekit.bench"],
        input='{"request": "hello"}\n',
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'agent.zip'}:{numpy_only}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"ok": true' in done.stdout
    assert "onnxruntime is not installed" in done.stdout  # runtimes/onnxruntime.py is not taken for the real one


def test_an_import_for_types_alone_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("import os\nif TYPE_CHECKING:\n    import torch\ndef f():\n    from a.b import c\n")
    assert set(imported(path)) == {"os", "a.b", "a.b.c"}
