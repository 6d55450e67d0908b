"""What jsonargparse says of a wrong command line, in one sentence with a way out."""

from __future__ import annotations

import argparse
import re
from typing import get_type_hints

from ppvae.experiments.runs.import_paths import near
from ppvae.storage import Settings

_KINDS = {
    "int": "a whole number",
    "int | None": "a whole number or null",
    "float": "a number",
    "str": "a text",
    "str | None": "a text or null",
    "dict": "names with values, as in --pair_args.latent_dim 10",
}


def usage_sentence(error: argparse.ArgumentError, words: list[str]) -> str:
    """What jsonargparse says over several lines, in one sentence with a way out."""
    text, more = str(error), f"`ppvae {words[0]} --help` lists them"
    unknown = re.search(r"unrecognized arguments: (\S+)", text) or re.search(r"not accept option '([\w.]+)'", text)
    if unknown:
        word = unknown[1].partition("=")[0]
        options = [f"--{field}" for field in (*Settings.__dataclass_fields__, "resume", "config", "split")]
        if not word.startswith("-") and "unrecognized" in text:
            return f"{word!r} is no option: {more}."
        return f"there is no option {word}{near('--' + word.lstrip('-').partition('.')[0], options)}: {more}."
    key, value = re.search(r'Parser key "([^"]+)"', text), re.search(r"(?:Got|Given) value: (.*)", text)
    if key and value:
        expected = get_type_hints(Settings).get(key[1]) or (re.search(r"Expected a (.*?)\.? Got", text) or ["", ""])[1]
        kind = getattr(expected, "__name__", None) or str(expected).replace("typing.", "")
        return f"{key[1]} must be {_choices(kind) or _KINDS.get(kind, kind)}; it is {value[1]!r}."
    missing = re.search(r"arguments are required: (.*)", text)
    if missing:
        return (
            f"{missing[1].replace(words[0] + '.', '').upper()} is missing: `ppvae {words[0]} --help` says what it is."
        )
    return re.sub(r'^Parser key "([^"]+)":', r"\1:", " ".join(text.split())).rstrip(".") + "."


def _choices(kind: str) -> str:
    """The words of a Literal, the last after "or"; empty for other types."""
    if not kind.startswith("Literal["):
        return ""
    *first, last = re.findall(r"'([^']*)'", kind)
    return f"{', '.join(first)} or {last}" if first else last
