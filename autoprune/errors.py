"""The exceptions of autoprune: a user's mistake, and the ends of a search."""


class UserError(Exception):
    """A mistake that the user can correct.

    The message says what is wrong, the value seen and the way out. The command line prints it without a
    traceback and exits with status 2.
    """


class Notice(UserWarning):
    """A warning about what is no mistake, such as a column that was guessed. The command line prints it as a notice."""


class StopSearch(Exception):  # noqa: N818 - as Python's StopIteration
    """Raised by a callback to end the search in order. The run has a result and can be resumed."""


class LimitReached(BaseException):
    """Raised by the objective when the evaluations, tokens or seconds of a search are spent.

    It does not derive from `Exception`, so that it also ends an agent that catches every `Exception`.
    """
