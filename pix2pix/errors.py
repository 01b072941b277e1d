"""Exceptions whose message is written for the user."""


class UserError(ValueError):
    """A mistake that the user can correct; the message says what is wrong and what to do.

    Command lines print it once, without a traceback, and exit with status 2.
    """


class LostProcessError(RuntimeError):
    """Another process of this training has ended or hangs, so this one cannot continue.

    Command lines print it on every rank that notices, without a traceback, and exit with status 69.
    """
