"""Every error graft raises on purpose. A message says what was wrong, where, what was seen and what to do.

GraftError                 the command line prints the message and exits with `exit_code`
├── BadInput               an option, a file, a row or a value cannot be used            (exit 2)
├── Refused                the request is understood and cannot be done here             (exit 2)
├── NotApplied             an adapter does not reach, move or change what it should      (exit 1)
└── GateFailed             a stated gate was not passed: it did not help, parity broke   (exit 1)
"""


class GraftError(Exception):
    """Base of all errors that graft raises on purpose."""

    exit_code = 2


class BadInput(GraftError, ValueError):
    """An option, a file, a row or a hyperparameter cannot be used as given."""


class Refused(GraftError):
    """The request is understood, and cannot be done: the message says what can be done instead."""


class NotApplied(GraftError):
    """An adapter misses a site it asked for, does not move, or does not change the output."""

    exit_code = 1


class GateFailed(GraftError):
    """A gate the user asked for was not passed."""

    exit_code = 1


def sentence(error: BaseException) -> str:
    """The first line of an error from elsewhere, with one full stop at its end."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if line.endswith((".", "?", "!")) else f"{line.rstrip(':;,')}."
