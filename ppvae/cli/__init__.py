"""The command line: its commands, their parser, and what it says of words that cannot be used."""

from .commands import main

__all__ = ["main"]
