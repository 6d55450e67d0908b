"""An error inside a user's program, as a sentence that names the program and its line.

The programs of a pair run under Pyro's handlers, so that a frame of the user's code below one of Pyro's belongs to a
program. What a library raises when it evaluates a program's sites, such as two shapes that do not fit, is the program's
too, though no line of it can be named. Any other error stays what it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ppvae.errors import PairError, PpvaeError

# Packages whose frames are not the user's; the pairs of ppvae.models are programs like any other.
LIBRARIES = {"pyro", "torch", "numpy", "scipy", "functools", "contextlib", "importlib", "unittest", "jaxtyping"}

# Modules that evaluate the sites of a run.
EVALUATE = {
    "ppvae.inference.pair.handlers",
    "ppvae.inference.pair.programs",
    "ppvae.inference.pair.traces",
    "ppvae.inference.pair.sites",
    "pyro.poutine.trace_struct",
}


@contextmanager
def programs_named() -> Iterator[None]:
    """Raise what a program raises inside as a :class:`PairError`; an interruption and any other error pass.

    Raises:
        PairError: a program failed; the sentence says where, and the error is the cause.
    """
    try:
        yield
    except PpvaeError as error:
        first = error.__cause__
        if isinstance(first, PpvaeError) and str(error).startswith(str(first)):
            raise first from first.__cause__  # Pyro has raised it again, with the shapes of all sites behind it
        raise
    except Exception as error:
        if not in_a_program(error):
            raise
        raise failed_run(error) from error


@contextmanager
def stated_named(what: str) -> Iterator[None]:
    """Raise what a function of the user's that is no program raises inside as a :class:`PairError`.

    Args:
        what: the function, as a sentence begins with it.
    """
    try:
        yield
    except PpvaeError:
        raise
    except Exception as error:
        raise PairError(f"{what} fails on the data: {said(error)}: mend it, or do without it.") from error


@contextmanager
def drawable() -> Iterator[None]:
    """Raise what comes of drawing from the model, data among it, as a :class:`PairError` with a way out."""
    try:
        yield
    except Exception as error:
        raise PairError(
            f"the model cannot be drawn from ({described(error)}): let poutine.uncondition(model) run, or, if only "
            "the data cannot be drawn, give predictive=False."
        ) from error


class FailedRun(PairError):
    """A program of a pair raised an error, which is the cause."""


def failed_run(error: BaseException) -> PairError:
    """The error of a pair whose programs cannot be run, with the place in the user's program."""
    if isinstance(error, PpvaeError):
        return PairError(str(error))
    return FailedRun(
        f"the pair cannot be run on the data: {described(error)}: run the programs by hand on a few data to see where."
    )


def described(error: BaseException) -> str:
    """An error in words, with its place in the user's program: the program's line, and that of what it called."""
    found = [f"in {frame.f_code.co_name}, line {line} of {named_file(frame)}" for frame, line in _frames(error)]
    if not found:
        return said(error)
    called = f", called {found[0]}" if len(found) > 1 else ""
    return f"{said(error)} ({found[-1]}{called})"


def in_a_program(error: BaseException) -> bool:
    """Whether an error arose in a program, in what a program called, where its sites are evaluated, or in the gradient
    of what it computed."""
    frames = _all_frames(error)
    if not frames or _frames(error):
        return bool(frames)
    if _module(frames[-1][0]).startswith("torch.autograd"):
        return True
    return _package(frames[-1][0]) in LIBRARIES and any(_module(frame) in EVALUATE for frame, _ in frames)


def raised_by_a_program(error: BaseException) -> bool:
    """Whether a line of a program itself raised an error, and no library that it called."""
    frames = _all_frames(error)
    return bool(_frames(error)) and of_the_user(frames[-1][0])


def said(error: BaseException) -> str:
    """The type of an error and the first line of its text, if it has one."""
    text = str(error).split("Trace Shapes:")[0].strip()  # which Pyro appends to what a program says
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def _frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """The frames of the user's code that ran under Pyro's handlers, outermost first, with their lines."""
    found, under_pyro = [], False
    for frame, line in _all_frames(error):
        if _package(frame) == "pyro":
            under_pyro = True
        elif under_pyro and of_the_user(frame):
            found.append((frame, line))
    return found


def _all_frames(error: BaseException) -> list[tuple[FrameType, int]]:
    found, trace = [], error.__traceback__
    while trace is not None:
        found.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return found


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _package(frame: FrameType) -> str:
    return _module(frame).split(".")[0]


def of_the_user(frame: FrameType) -> bool:
    """Whether a frame is of code that is neither ours nor a library's."""
    if _package(frame) == "ppvae":
        return _module(frame).startswith("ppvae.models")
    return _package(frame) not in LIBRARIES


def named_file(frame: FrameType) -> str:
    """The name of the file of a frame's code, without its folder."""
    return frame.f_code.co_filename.replace("\\", "/").rsplit("/", 1)[-1]
