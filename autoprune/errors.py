"""What can go wrong by the user's hand, and the end of a search."""


class UserError(Exception):
    """A mistake that the person at the terminal can mend.

    The message says what is wrong, the value seen and the way out. The command line prints it without a
    traceback and exits with status 2.
    """


class LimitReached(BaseException):
    """Raised by the objective when the evaluations, tokens or seconds of a search are spent.

    It is no `Exception`, so that an agent that goes on after any error ends all the same.
    """
