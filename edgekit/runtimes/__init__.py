"""What executes an artifact. One file per runtime; each has two functions:

    missing() -> str or None          why this runtime cannot run here (package, hardware), and what to install
    open_session(path, options) -> Session

Runs on boards: Python 3.8, the standard library, numpy and one runtime. A setting is obeyed or refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Dict, List, Mapping, Tuple

import numpy as np

from edgekit.artifact import TensorSpec


class Session(ABC):
    """An open artifact in a runtime.

    engine: what really runs, read back from the runtime: versions, providers, threads, and where it is known the
            number of convolutions executed in int8 and in float.
    """

    inputs: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...]
    engine: Mapping[str, Any]

    @abstractmethod
    def infer(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Outputs by name for one set of inputs."""

    @abstractmethod
    def time_ms(self, feeds: Mapping[str, np.ndarray], count: int) -> List[float]:
        """Milliseconds from submit to result of `count` inferences, one after the other.

        Only the runtime knows how to synchronise, so only it may time.
        """

    def layers(self) -> List[Dict[str, Any]]:
        """Per-layer times where the runtime gives them: [{name, type, ms}]; empty where it does not."""
        return []

    def close(self) -> None:
        """Frees what the runtime holds."""
