"""How a command ends after an error: what is printed, by whom, with which status."""

import contextlib
import os
import select
import sys
import time
import traceback
from typing import NoReturn

from pix2pix.cli.help import wrap
from pix2pix.errors import LostProcessError, UserError

HEAD_START_SECONDS = 3.0  # of rank 0, to tell an error that every rank has


def end_after(error: BaseException) -> int:
    """Print `error` and return the exit status; called where it was caught.

    An error that is a bug of ours is raised again, to keep its traceback. A rank of several does
    not return: it prints, and leaves.
    """
    if isinstance(error, UserError):
        status = 2
        if is_first_rank() if error.tell is None else error.tell:
            print(wrap(f"error: {error}"), file=sys.stderr)
        elif error.tell is None:
            # Every rank meets it by itself, before they have joined. A launcher that sees this one
            # end first would end rank 0 before it has told.
            time.sleep(HEAD_START_SECONDS)
    elif isinstance(error, LostProcessError):
        status = 69  # EX_UNAVAILABLE
        print(wrap(f"error: {error}"), file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt):
        status = 130  # 128 + SIGINT, as a shell reports it
    elif isinstance(error, BrokenPipeError) and _reader_has_left():
        # Or the interpreter flushes on its way out, and complains.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141  # 128 + SIGPIPE
    elif _is_one_of_several():
        status = 1
        traceback.print_exc()
    else:
        raise error
    if _is_one_of_several():
        leave(status)
    return status


def leave(status: int) -> NoReturn:
    """End this process at once, its last words told.

    An orderly exit would wait for the other ranks: NCCL's groups are closed together, and threads
    that save or reduce wait for messages that never come.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or its disk full
            stream.flush()
    os._exit(status)


def is_first_rank() -> bool:
    """Return True if this process speaks for all of a launch."""
    return os.environ.get("RANK", "0") == "0"  # set by accelerate, torchrun and our SLURM job


def _is_one_of_several() -> bool:
    return os.environ.get("WORLD_SIZE", "1") not in ("", "1")


def _reader_has_left() -> bool:
    """Return True if the broken pipe is our stdout (`… | head`), not one of the command."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
