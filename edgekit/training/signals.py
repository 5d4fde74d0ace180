"""Ctrl-C and SIGTERM wait for the end of a training step, so that no weight is half updated when they are obeyed."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Held:
    """Within this context a first signal only sets `came`; a second one is obeyed at once.

    On leaving, or by `obey`, a signal that came goes to whoever handled it before. Outside the main thread, where
    Python allows no handlers, nothing is held.
    """

    def __init__(self) -> None:
        self.came: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Held:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if handler not in (None, signal.SIG_IGN):  # ignored ones (nohup) stay ignored
                    self._before[number] = handler
                    signal.signal(number, self._hold)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()
        if kind is None:
            self.obey()

    def obey(self) -> None:
        """Hands a signal that came on; its handler raises or ends the process."""
        if self.came is not None:
            self._release()
            number, self.came = self.came, None
            signal.raise_signal(number)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self.came is None:
            self.came = number
            return
        self._release()
        signal.raise_signal(number)

    def _release(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
