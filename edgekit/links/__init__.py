"""How a board is reached. One file per link; each has `open_link(settings) -> Link`."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType


class Link(ABC):
    """An open way to a board. Used as a context manager: what was locked or started is released on the way out.

    notes: what the board could not be given (locked clocks), and why.
    """

    notes: Sequence[str] = ()

    @abstractmethod
    def put(self, path: Path, sha256: str, companions: Sequence[Path] = ()) -> str:
        """Brings a file to the board (nothing to do where it is there with that hash); returns its path there.

        companions: files that a runtime looks for beside it, by the same stem (`model.trt8.onnx` of `model.onnx`).
        """

    @abstractmethod
    def get(self, remote: str, path: Path) -> None:
        """Brings a file from the board."""

    @abstractmethod
    def bench(self) -> subprocess.Popen[str]:
        """Starts `edgekit.bench` on the board: requests in, answers out, one JSON object a line.

        It ends when its standard input closes.
        """

    def close(self) -> None:
        """Releases the board."""

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
