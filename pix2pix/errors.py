"""Exceptions whose message is written for the user."""


class UserError(ValueError):
    """A mistake that the user can correct; the message says what is wrong and what to do.

    Command lines print it once, without a traceback, and exit with status 2.
    tell: whether this rank prints it; None: rank 0 does, because every rank has it.
    """

    tell: bool | None = None


class StorageError(UserError):
    """A disk or network file system that does not answer: no fault of a file, nor of the user.

    A training saves what it has and ends with status 75: the same command goes on.
    """


class LostProcessError(RuntimeError):
    """Another process of this training has ended or hangs, so this one cannot continue.

    Command lines print it on every rank that notices, without a traceback, and exit with status 69.
    """
