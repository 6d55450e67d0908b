"""The lines of the user's source where sample statements and parameters stand."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from pyro.poutine.messenger import Messenger

from .contract import Finding
from .failures import named_file, of_the_user


class SourceLines(Messenger):
    """Notes, of each sample statement and parameter that runs inside, the line of the user's program.

    It is the innermost line of code that is neither a library's nor ours; of a latent there are two, the guide's and
    the model's.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: dict[str, list[str]] = {}

    def _pyro_sample(self, msg: Any) -> None:
        self._note(msg["name"])

    def _pyro_param(self, msg: Any) -> None:
        self._note(msg["name"])

    def _note(self, name: str) -> None:
        frame = sys._getframe(1)
        while frame is not None and not of_the_user(frame):
            frame = frame.f_back  # type: ignore[assignment]
        if frame is None:
            return
        line = f"{named_file(frame)}:{frame.f_lineno}"
        noted = self._lines.setdefault(name, [])
        if line not in noted:
            noted.append(line)

    def added_to(self, finding: Finding) -> Finding:
        """The finding with the lines of its site or parameter."""
        return replace(finding, line=" and ".join(self._lines.get(finding.site, [])[:2]))
