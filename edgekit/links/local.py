"""This machine as a board: `edgekit.bench` in a process of its own, as on every other board."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import edgekit
from edgekit.errors import InputError
from edgekit.links import Link

# numpy's own thread pools would stand beside the runtime's threads, whose number is set when a session opens.
_ENVIRONMENT = {
    "ORT_DISABLE_TELEMETRY": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}


def open_link(settings: Mapping[str, Any]) -> Link:
    """A link to this machine; it has no settings."""
    if settings:
        raise InputError(f"link local: unknown setting '{next(iter(settings))}'.", next="leave `link` out, or write {}")
    return LocalLink()


class LocalLink(Link):
    def put(self, path: Path, sha256: str, companions: Sequence[Path] = ()) -> str:
        """The file stays where it is, and so does what stands beside it."""
        return str(path.resolve())

    def get(self, remote: str, path: Path) -> None:
        shutil.copyfile(remote, path)

    def bench(self) -> subprocess.Popen[str]:
        # The package's parent goes first on the path, so that a checkout is measured with its own bench.
        parent = str(Path(edgekit.__file__).resolve().parent.parent)
        paths = [parent, *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.Popen(
            [sys.executable, "-m", "edgekit.bench"],
            start_new_session=True,  # Ctrl-C is for edgekit, which closes the bench's input
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)},
        )
