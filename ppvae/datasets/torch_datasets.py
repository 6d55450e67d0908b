"""Torch's ``Dataset`` and ``DataLoader``: all that they yield, stacked by member.

An item, or a batch, is x alone, a tuple ``(x, *others)``, or a dict; x is the member of that name, or else the first.
Another member with one whole number or one text for each datum is a label, as in ``ImageFolder`` of torchvision, whose
items are (image, label): it colours pictures, and is given to the programs only where it is asked for by
``context_columns``. All others are context, in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data import Dataset as TorchDataset

from ppvae.errors import DataError

from .found import Found, member

X, LABEL = "x", "label"
# Names under which a dict holds its data, tried in this order.
NAMES_OF_X = ("x", "image", "images", "img", "inputs", "data", "features")


def is_torch_data(value: Any) -> bool:
    """Whether a value yields data: a torch Dataset, a DataLoader, or what has items by number as these have."""
    if isinstance(value, TorchDataset | DataLoader):
        return True
    kind = type(value)
    plain = not isinstance(value, Mapping | list | tuple | str | bytes | Tensor | np.ndarray)
    return (
        plain
        and hasattr(kind, "__getitem__")
        and hasattr(kind, "__len__")
        and not hasattr(value, "__array__")
        and not hasattr(value, "toarray")
    )


def in_torch(value: Any, what: str, name: str) -> Found:
    """All that a Dataset or a DataLoader yields.

    A loader that only shuffles is read in the order of its data set, the last batch included, so that the split does
    not depend on the order; one with a sampler of its own is read as it comes, from its own seed 0 if it shuffles.

    Raises:
        DataError: it yields nothing, what it yields cannot be stacked, or its members change.
    """
    batches = (isinstance(value, DataLoader) and value.batch_size is not None) or _has_batch_sampler(value)
    columns: dict[str, list[Any]] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for number, item in enumerate(_items(value)):
            members = _members(item, f"item {number} of {what}")
            if columns and members.keys() != columns.keys():
                raise DataError(
                    f"item {number} of {what} holds {sorted(members)}, the first {sorted(columns)}: give all the same."
                )
            for key, each in members.items():
                columns.setdefault(key, []).append(each)
    if not columns:
        raise DataError(f"{what} yields nothing: give at least 3 data.")
    arrays = {key: _stacked(values, batches, f"{key!r} of {what}") for key, values in columns.items()}
    return _sorted(arrays, what, name, is_dict=isinstance(item, Mapping))


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, DataLoader):
        plain = type(value.sampler) in (RandomSampler, SequentialSampler) and not getattr(
            value.sampler, "replacement", False
        )
        whole = plain and len(value.sampler) == len(value.dataset)  # type: ignore[arg-type]
        if whole and value.batch_size is not None and not isinstance(value.dataset, IterableDataset):
            return DataLoader(value.dataset, batch_size=value.batch_size, collate_fn=value.collate_fn)
        return value
    if isinstance(value, IterableDataset):
        return value
    return (value[i] for i in range(len(value)))


def _has_batch_sampler(value: Any) -> bool:
    return isinstance(value, DataLoader) and value.batch_sampler is not None


def _members(item: Any, what: str) -> dict[str, Any]:
    if isinstance(item, Mapping):
        if not item:
            raise DataError(f"{what} is empty: give each item a member that holds x.")
        key = next((name for name in NAMES_OF_X if name in item), next(iter(item)))
        return {X: item[key], **{str(name): each for name, each in item.items() if name != key}}
    if isinstance(item, tuple | list) and not all(isinstance(each, int | float) for each in item):
        if not item:
            raise DataError(f"{what} is empty: give each item a member that holds x.")
        names = [X, *(f"member_{i}" for i in range(1, len(item)))]
        return dict(zip(names, item, strict=True))
    return {X: item}


def _stacked(values: list[Any], batches: bool, what: str) -> Any:
    """All values of a member as one array; texts as an array of texts."""
    if batches and all(isinstance(value, list | tuple) for value in values):  # a batch of texts
        values, batches = [each for value in values for each in value], False
    if all(isinstance(value, str) for value in values):
        return np.array(values)
    if any(_is_picture(value) for value in values):
        raise DataError(
            f"{what} is a picture of PIL: give the data set a transform that makes a tensor of one size, as "
            "torchvision.transforms.ToTensor."
        )
    arrays = [np.asarray(member(value, what)) if not np.isscalar(value) else np.asarray(value) for value in values]
    shapes = {array.shape[1:] if batches else array.shape for array in arrays}
    if len(shapes) > 1:
        first, second = sorted(shapes)[:2]
        raise DataError(f"{what} has data of different shapes, {first} and {second}: give each datum the same.")
    return np.concatenate(arrays) if batches else np.stack(arrays)


def _is_picture(value: Any) -> bool:
    return type(value).__module__.startswith("PIL.")


def _sorted(arrays: dict[str, Any], what: str, name: str, is_dict: bool) -> Found:
    """The members, of which labels are not context."""
    x, beside, context, label = arrays.pop(X), {}, {}, None
    for key, array in arrays.items():
        whole = array.ndim == 1 and array.dtype.kind in "biuUS"
        if not whole:
            context[key] = array
            continue
        own = key if is_dict or len(arrays) > 1 else LABEL
        beside[own], label = array, label or own
    return Found(what, name, {X: x, **context}, beside, label, by_name=is_dict)
