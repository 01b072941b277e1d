"""Stop signals become a flag that the training reads between steps (no torch: it listens early)."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

BURST_SECONDS = 1.0


class StopRequest:
    """Set by SIGTERM, SIGINT, SIGUSR1 or SIGUSR2; another, a second or more later, ends at once.

    One order to stop may come as several signals in a burst: from the terminal and the launcher,
    or from the kernel for every thread of a dying launcher that the process was handed on to.
    patient: no signal ends the process. For a batch system, which signals several times on its own
        (a warning, a time limit), and kills what takes too long.
    """

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self, patient: bool = False) -> None:
        self.received: signal.Signals | None = None
        self._patient = patient
        self._since = 0.0

    @contextlib.contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Catch the signals inside the block. Outside the main thread it catches nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        previous = {number: signal.signal(number, self._receive) for number in self.signals}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._since = signal.Signals(number), time.monotonic()
        elif not self._patient and time.monotonic() - self._since >= BURST_SECONDS:
            os._exit(128 + number)
