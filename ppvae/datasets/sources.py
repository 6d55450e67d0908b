"""Which reader a source of data needs: files, objects in memory, torch data sets, or parts that are sources each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ppvae.errors import DataError, DatasetError, suggestion

from .arrangement import PARTS
from .dataset import Dataset
from .found import ONE, Found, in_memory, is_annotated
from .known import DATASETS
from .torch_datasets import in_torch, is_torch_data
from .user_files import OTHER_KINDS, SUFFIXES, in_file


def find(source: Any) -> Found:
    """The arrays and tables of a source of any kind.

    Raises:
        PpvaeError: it is of no kind that is known, or cannot be read.
    """
    if isinstance(source, Dataset):
        raise DataError("this is a Dataset of ppvae already: use its train, validation and test parts.")
    if isinstance(source, str | Path):
        return in_file(_checked_path(Path(source).expanduser()))
    name = type(source).__name__
    what = f"the {name}"
    if isinstance(source, Mapping) and {"train", "test"} <= {str(key) for key in source}:
        return _joined({str(key): find(value) for key, value in source.items()}, what)
    if is_annotated(source):
        return in_memory(source, what, name)
    if is_torch_data(source) and not isinstance(source, Tensor) and not hasattr(source, "columns"):
        return in_torch(source, what, name)
    return in_memory(source, what, name)


def _checked_path(path: Path) -> Path:
    suffix = path.suffix.lower()
    if path.is_dir() and suffix != ".zarr":
        raise DatasetError(
            f"there is no file {path}, which is a folder: name a file in it; a folder of pictures goes through "
            "torchvision's ImageFolder, which load_dataset takes."
        )
    if suffix not in SUFFIXES:
        what = f"there is no data set {str(path)!r}{suggestion(str(path), DATASETS)}"
        more = f"; what ends in {suffix} is not read: {OTHER_KINDS[suffix]}" if suffix in OTHER_KINDS else ""
        known = f"give one of {', '.join(DATASETS)}, or a path that ends in {', '.join(SUFFIXES)}"
        raise DatasetError(f"{what}: {known}{more}.")
    if not path.exists():
        raise DatasetError(f"there is no file {path}: correct the path, or give one of {', '.join(DATASETS)}.")
    return path


def _joined(parts: dict[str, Found], what: str) -> Found:
    """Three parts, or two, that are sources of their own, as one; what stands beside them one after the other."""
    if "valid" in parts:
        parts["validation"] = parts.pop("valid")
    found = {part: parts[part] for part in PARTS if part in parts}
    if other := parts.keys() - set(PARTS):
        raise DatasetError(f"{what} holds {sorted(other)[0]!r} beside its parts: name train, validation and test only.")
    members: dict[str, Any] = {}
    beside: dict[str, list[np.ndarray]] = {}
    context: dict[str, list[np.ndarray]] = {}
    for part, each in found.items():
        key = next((key for key in (ONE, "x") if key in each.members), next(iter(each.members)))
        members[part] = each.members[key]
        for name, value in each.beside.items():
            beside.setdefault(name, []).append(value)
        for name, value in each.members.items():
            if name != key:
                context.setdefault(name, []).append(value)
    for name, values in (*beside.items(), *context.items()):
        if len(values) != len(found):
            raise DatasetError(f"only some parts of {what} hold {name!r}: give it for each, or for none.")
    joined = {name: np.concatenate(values) for name, values in context.items()}
    first = found["train"]
    return Found(
        ", ".join(each.what for each in found.values()),
        first.name,
        members | joined,
        {name: np.concatenate(values) for name, values in beside.items()},
        first.label,
        first.by_name,
    )
