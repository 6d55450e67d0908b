"""The command line, built from the signatures and docstrings of the functions that it calls.

Torch takes seconds to import, so each command imports it where it is needed, and `ppvae run --help` is quick.
"""

from .dispatch import main

__all__ = ["main"]
