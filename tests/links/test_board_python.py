"""What a board's Python lacks, and what to install there, from where, on its JetPack."""

from __future__ import annotations

from subprocess import CompletedProcess

import pytest

from edgekit.errors import DependencyError, DeviceError
from edgekit.links.ssh.board_python import check_python

JETPACK_4 = "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t186ref, EABI: aarch64\n"
JETPACK_6 = "# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic, EABI: aarch64\n"


class FakeClient:
    host = "root@board"

    def __init__(self, stdout: str, code: int = 0, stderr: str = ""):
        self._done = CompletedProcess([], code, stdout.encode(), stderr.encode())

    def run(self, script: str, *arguments: str) -> CompletedProcess[bytes]:
        return self._done


def test_python_3_8_with_numpy_is_enough() -> None:
    check_python(FakeClient("Welcome!\nedgekit-python 3.8 numpy 1.17.4\n"), "python3")


def test_jetpack_4_has_too_old_a_python_and_the_error_names_a_newer_one() -> None:
    with pytest.raises(DependencyError, match=r"'python3' is Python 3\.6; the agent needs 3\.8") as caught:
        check_python(FakeClient(JETPACK_4 + "edgekit-python 3.6 numpy 1.13.3\n"), "python3")
    assert "apt-get install python3.8" in str(caught.value)
    assert "python: python3.8" in str(caught.value)


def test_numpy_comes_from_apt_for_the_systems_python_and_from_pip_for_another() -> None:
    with pytest.raises(DependencyError, match="JetPack 6, 'python3' has no numpy") as caught:
        check_python(FakeClient(JETPACK_6 + "edgekit-python 3.10 numpy none\n"), "python3")
    assert "apt-get install python3-numpy" in str(caught.value)
    with pytest.raises(DependencyError) as caught:
        check_python(FakeClient("edgekit-python 3.11 numpy none\n"), "/opt/venv/bin/python")
    assert "/opt/venv/bin/python -m pip install numpy" in str(caught.value)


def test_no_python_at_all_is_a_missing_dependency() -> None:
    with pytest.raises(DependencyError, match="there is no 'python3'"):
        check_python(FakeClient("", 127, "sh: python3: not found"), "python3")


def test_a_python_that_does_not_work_is_an_error_with_what_it_said() -> None:
    with pytest.raises(DeviceError) as caught:
        check_python(FakeClient("", 1, "Fatal Python error: init_fs_encoding"), "python3")
    assert caught.value.why == "Fatal Python error: init_fs_encoding"
