"""The one exception whose message is written for the person at the keyboard."""


class UserError(ValueError):
    """A mistake that the user can mend; the message says what is wrong and what to do.

    Command lines print it once, without a traceback, and exit with status 2.
    """
