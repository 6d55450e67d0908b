"""The entry point: parse the words of a command line, call the command, and turn errors into exit codes.

Exit codes: 0 all is well; 1 `ppvae check` has findings; 2 something given cannot be used, with one sentence on
stderr; 130 interrupted. An unforeseen exception keeps its traceback: it is a bug.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from ppvae.errors import OptionError, PpvaeError, suggestion

from .commands import COMMANDS, experiment
from .console import fail
from .parser import call, commands_parser, parse, usage_of
from .usage import Usage

BAD_INPUT, INTERRUPTED, READER_LEFT = 2, 130, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the words after ``ppvae``; those of the process by default.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Threads that wait by spinning take the cores from each other on a busy machine. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return _dispatch(words)
    except PpvaeError as error:
        return fail(str(error), BAD_INPUT)
    except SystemExit as stop:  # --help, --version and --print_config
        return int(stop.code or 0)
    except KeyboardInterrupt as stop:
        return fail(str(stop) or "interrupted.", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has closed it: print nothing more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_LEFT


def _dispatch(words: list[str]) -> int:
    if not words or (not words[0].startswith("-") and words[0] not in COMMANDS):
        what = f"there is no command {words[0]!r}{suggestion(words[0], COMMANDS)}" if words else "a command is missing"
        raise OptionError(f"{what}: give one of {', '.join(COMMANDS)}, or --help.")
    name, own = words[0], words[1:]
    if name == "experiment" and own and not own[0].startswith("-"):
        return experiment(own[0], own[1:])  # each has options of its own
    usage = usage_of(name, COMMANDS[name]) if name in COMMANDS else Usage("", [], {"version": None})
    values = parse(commands_parser(COMMANDS), words, own, usage)[name].as_dict()
    if values.get("resume") is not None:
        _check_alone(own)
    return call(COMMANDS[name], values, shlex.join(["ppvae", *words]))


def _check_alone(own: list[str]) -> None:
    """Raise OptionError where other options are given with --resume, even with their default values."""
    names = [word.partition("=")[0].partition(".")[0] for word in own if word.startswith("--")]
    if set(names) - {"--resume", "--compute"}:
        raise OptionError(
            "--resume takes every option from the run's config.yaml: give no other with it but --compute."
        )
