"""Files that appear whole or not at all.

A file is written beside its destination under a hidden name, brought to the disk (``fsync``) and renamed onto it, which
POSIX makes atomic: a reader, or the next start after a crash, sees the old content or the new, never half of either.
"""

import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ppvae.errors import RunError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Lend a temporary path beside ``path``; what was written there becomes ``path`` when the block ends well.

    Use it with any writer that takes a path. The temporary name keeps the suffix, by which writers choose a format.
    When the block raises, the temporary file is removed and ``path`` stays as it was.

    Args:
        path: where the file shall appear; its folder must exist.

    Yields:
        The path to write to, in the same folder.

    Raises:
        RunError: the folder is missing or read-only, the disk is full, or the block wrote nothing.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_path(folder / "numbers.txt") as temporary:
        ...     _ = temporary.write_text("1 2 3")
        >>> [file.name for file in folder.iterdir()]
        ['numbers.txt']
    """
    target = Path(path)
    temporary = target.with_name(f".{secrets.token_hex(4)}.{target.name}")
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(
            f"{target} could not be written ({reason}): give a folder that exists, is writable and has room."
        ) from error
    finally:
        # The folder itself may be missing or a file; the error that matters is already on its way.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    # Not every file system can synchronise a folder, and the file is in its place already.
    with suppress(OSError):
        _to_disk(target.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, atomically.

    Args:
        path: where the file shall appear; its folder must exist.
        text: the whole content.

    Raises:
        RunError: the file could not be written; a file that was there stays as it was.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "note.txt"
        >>> write_text(file, "log p(x)")
        >>> file.read_text(encoding="utf-8")
        'log p(x)'
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` to ``path`` as JSON that every reader accepts, atomically.

    Arrays and tensors become lists. JSON has no number that is not finite: NaN and ±inf are written as ``null``.

    Args:
        path: where the file shall appear; its folder must exist.
        value: dictionaries, lists, tuples, strings, numbers, booleans, None, arrays and tensors, nested at will.

    Raises:
        RunError: the file could not be written; a file that was there stays as it was.
        TypeError: ``value`` holds something else.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "summary.json"
        >>> write_json(file, {"elbo": -1.5, "pareto_k": float("nan")})
        >>> json.loads(file.read_text())
        {'elbo': -1.5, 'pareto_k': None}
    """
    write_text(path, json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return value


def _to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, has reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
