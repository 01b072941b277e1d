"""Stop signals become a flag that the training reads between steps (no torch: it listens early)."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

BURST_SECONDS = 1.0


class StopRequest:
    """Set by SIGTERM, SIGINT, SIGUSR1 or SIGUSR2; the third, a second or more later, ends at once.

    The first says at once that the training stops after this step, the second what a third would
    lose. One order to stop may come as several signals in a burst: from the terminal and the
    launcher, or from the kernel for every thread of a dying launcher that the process was handed
    on to.
    patient: no signal ends the process. For a batch system, which signals several times on its own
        (a warning, a time limit), and kills what takes too long.
    would_lose: says what is lost where the save is not waited for; set by who knows.
    """

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self, patient: bool = False) -> None:
        self.received: signal.Signals | None = None
        self.would_lose: Callable[[], str] = lambda: "what was trained since the last checkpoint"
        self._patient = patient
        self._since = 0.0
        self._warned = False

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
        now = time.monotonic()
        if self.received is None:
            self.received, self._since = signal.Signals(number), now
            _say(f"{self.received.name}: stopping after this step, saving …")
        elif self._patient or now - self._since < BURST_SECONDS:
            return
        elif not self._warned:
            self._warned, self._since = True, now
            _say(f"saving; another signal ends it at once and loses {self.would_lose()}")
        else:
            os._exit(128 + number)


def _say(line: str) -> None:
    """Write a line, from rank 0 alone; not by print, in the midst of which a signal may come."""
    if os.environ.get("RANK", "0") == "0":
        with contextlib.suppress(OSError):
            os.write(2, f"\n{line}\n".encode())
