"""The errors of ppvae: one clear sentence each, that names the argument, what was wrong with it and the way out.

The command line prints the sentence and exits with code 2; from Python each is an exception of its own type, all of
them a :class:`PpvaeError`.
"""

import difflib
from collections.abc import Iterable


class PpvaeError(ValueError):
    """Something a user gave cannot be used; the message says what, why and what to do."""


class DataError(PpvaeError):
    """The data cannot be used: not finite, empty, of the wrong shape or type, or outside the likelihood's support."""


class DatasetError(PpvaeError):
    """A data set is not available: unknown name, missing or corrupt file, wrong hash, no network."""


class PairError(PpvaeError):
    """A model/guide pair breaks the contract, so that the requested result has no meaning."""


class OptionError(PpvaeError):
    """An option has a value that cannot be used."""


class CheckpointError(PpvaeError):
    """A checkpoint is missing, damaged, or belongs to another pair or another run."""


class RunError(PpvaeError):
    """A run directory cannot be read or written."""


class NonFiniteError(PpvaeError):
    """A loss, a gradient or a log weight is not finite; the last good state was kept."""


class ProcessError(PpvaeError):
    """A process of a training on several has ended or does not answer; what was reached is kept."""


def first_line(error: BaseException) -> str:
    """The first line of another library's error, or its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def suggestion(word: str, known: Iterable[str]) -> str:
    """A guess at the word that was meant, to be put into a message; empty where none is near.

    Example:
        >>> suggestion("epcohs", ["epochs", "seed"])
        " (did you mean 'epochs'?)"
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
