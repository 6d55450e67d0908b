"""Numbers on a page, each with its key in the summary.

A number is never handed to a template as a value, only by its key: what the page shows is what the summary holds. Each
becomes an element with ``data-key`` (the path of keys, joined by dots) and ``data-value`` (the value in full, as JSON).
"""

from __future__ import annotations

import json
import math
import re
from string import Formatter
from typing import Any

from markupsafe import Markup, escape

from ppvae.errors import RunError
from ppvae.percent import percent
from ppvae.with_errors import decimals

# Which command writes a section of the summary; everything else is written by `ppvae evaluate`.
WRITTEN_BY = {
    "certificate": "certify",
    "gap_attribution": "gap",
    "mended": "mend",
    "collapse": "collapse",
} | dict.fromkeys(("latent_units", "calibration", "quality"), "posterior")


class Numbers:
    """The numbers of one summary, as they are shown.

    Args:
        content: the summary: dictionaries and lists, nested, with numbers in them.
        source: the file that it is from, for errors.
        run: the run directory, for errors.
        prefix: put before every key in the page.

    Example:
        >>> numbers = Numbers({"evidence": {"elbo": -94.186, "share": 0.985, "num_data": 10000}})
        >>> numbers.fill("{evidence.elbo:.2f} nats & more")
        Markup('<span class="number" data-key="evidence.elbo" data-value="-94.186">−94.19</span> nats &amp; more')
        >>> numbers.text("evidence.share", ".0%"), numbers.text("evidence.num_data")
        ('98\u202f%', '10\u202f000')
    """

    def __init__(self, content: dict[str, Any], source: str = "summary.json", run: str = "RUN", prefix: str = ""):
        self.content, self.source, self.run, self.prefix = content, source, run, prefix

    def has(self, key: str) -> bool:
        """Whether the summary has a value under a key."""
        return self._find(key) is not None

    def value(self, key: str) -> float | int | bool | None:
        """The number under a key; None for one that is not finite, which JSON cannot hold.

        Raises:
            RunError: there is none.
        """
        found = self._find(key)
        if found is None or not isinstance(found[0], bool | int | float | None):
            command = WRITTEN_BY.get(key.partition(".")[0], "evaluate")
            raise RunError(
                f"{self.source} is damaged (it has no number {key}): `ppvae {command} {self.run}` writes it again."
            )
        value = found[0]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    def known(self, key: str) -> bool:
        """Whether the number under a key is finite."""
        return self.value(key) is not None

    def text(self, key: str, spec: str = "") -> str:
        """A number as text: a true minus sign, thousands apart, per cent after a space."""
        return shown(self.value(key), spec)

    def spec(self, key: str, error: str | None = None) -> str:
        """The format of a number that has a standard error, by :func:`decimals`.

        Args:
            key: of the number.
            error: the key of its error; None takes ``<key>_standard_error``.

        Example:
            >>> Numbers({"gap": 5.265, "gap_standard_error": 0.026}).spec("gap")
            '.3f'
        """
        return f".{decimals(self.value(error or f'{key}_standard_error'))}f"

    def with_error(self, key: str) -> Markup:
        """A number and its standard error as elements of the page, with the same decimals."""
        spec = self.spec(key)
        return Markup("{} ± {}").format(self(key, spec), self(f"{key}_standard_error", spec))

    def __call__(self, key: str, spec: str = "") -> Markup:
        """A number as an element of the page."""
        value = json.dumps(self.value(key))
        return Markup('<span class="number" data-key="{}" data-value="{}">{}</span>').format(
            self.prefix + key, value, self.text(key, spec)
        )

    def fill(self, sentence: str) -> Markup:
        """A sentence with ``{key:format}`` in it, the numbers put in; ``{key:±}`` is a number with its standard error.

        Args:
            sentence: written by this program; text from elsewhere would be read as a format.
        """
        parts = []
        for literal, key, spec, _ in Formatter().parse(sentence):
            parts.append(escape(literal))
            if key is not None:
                parts.append(self.with_error(key) if spec == "±" else self(key, spec or ""))
        return Markup("").join(parts)

    def _find(self, key: str) -> tuple[Any] | None:
        """The value under a path of keys, in a tuple, since it may be None."""
        return _found(self.content, key.split("."))


def _found(content: Any, words: list[str]) -> tuple[Any] | None:
    if not words:
        return (content,)
    if isinstance(content, list):
        word = words[0]
        return _found(content[int(word)], words[1:]) if word.isdigit() and int(word) < len(content) else None
    if isinstance(content, dict):
        for end in range(1, len(words) + 1):  # a key may hold dots itself
            name = ".".join(words[:end])
            if name in content and (found := _found(content[name], words[end:])) is not None:
                return found
    return None


def shown(value: float | int | bool | None, spec: str = "") -> str:
    """A number as text.

    Example:
        >>> shown(-1234.5, ".1f"), shown(12345), shown(True), shown(None), shown(1e-9)
        ('−1\u202f234.5', '12\u202f345', 'yes', 'not known', '1e−09')
        >>> shown(0.984, ".0%"), shown(0.996, ".0%")
        ('98\u202f%', '>\u202f99\u202f%')
    """
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    spec = spec or ("d" if isinstance(value, int) else ".4g")
    if re.fullmatch(r"\.\d%", spec):
        text = percent(value, int(spec[1])).replace(" ", "\u202f")
    else:
        sign, digits = ("+", spec[1:]) if spec.startswith("+") else ("", spec)
        text = format(value, f"{sign}{digits if digits[-1] in '%g' else ',' + digits}")
    # A thin space that does not break, as in the international standard of units.
    return text.replace(",", "\u202f").replace("-", "−").replace("%", "\u202f%")
