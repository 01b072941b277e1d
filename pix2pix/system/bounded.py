"""Run a program for a bounded time: it, and whatever it started, ends by then."""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import BinaryIO, NamedTuple

GRACE_SECONDS = 5.0  # for a killed process; one that waits in a driver may never end


class Ended(NamedTuple):
    """How a program ended.

    status: its exit status, negative for a signal; None where its time was over. output, errors:
    what it wrote until then.
    """

    status: int | None
    output: str
    errors: str
    seconds: float


def run_bounded(
    command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run a program for `seconds` at most; then it is killed, with the processes it started.

    Output goes to memory that is a file: a pipe would be waited for as long as any process holds
    it, which may be one that the kernel does not let end, and a disk may be full.

    Args:
        command: of the program.
        seconds: how long it may run.
        environment: variables that it gets besides those of this process.
    """
    variables = {**os.environ, **(environment or {})}
    began = time.monotonic()
    with _memory_file() as output, _memory_file() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=variables,
            start_new_session=True,
        )
        status: int | None = None
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:  # also after Ctrl-C, which a session of its own does not hear
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
        written, complaints = _text_of(output), _text_of(errors)
    return Ended(status, written, complaints, time.monotonic() - began)


def _memory_file() -> BinaryIO:
    if hasattr(os, "memfd_create"):  # Linux
        return os.fdopen(os.memfd_create("output"), "w+b")
    return tempfile.TemporaryFile()


def _text_of(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
