"""The data sets that are known by name, as their likelihood sees them: counts, or zeros and ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from .arrangement import PARTS
from .arrays import to_rows
from .dataset import BINARISATION_SEED, Dataset, drawn_once
from .downloads import ready_made
from .embedded import LABELLED, TABLES

DATASETS = {
    "digits": "8x8 handwritten digits of scikit-learn, counts 0..16, embedded: 1297/250/250",
    "labelled_digits": "the digits with their labels 0..9 as context",
    "few_labels": "the digits with labels as context, of which 200 training data keep theirs and others have -1",
    "mnist": "28x28 grey digits, binarised afresh at each draw (validation and test once): 50000/10000/10000",
    "binarized_mnist": "MNIST in the fixed binarisation of Larochelle and Murray: 50000/10000/10000",
    "jsb_chorales": "chorales of Bach, 160 steps of 88 notes, and their lengths as context: 229/76/77",
    "breast_cancer": "30 measurements of tumours of scikit-learn, standardised, embedded: 457/56/56",
    "breast_cancer_missing": "the same; in every other column most of the values above the mean are missing",
    "diabetes_missing": "11 measurements of patients of scikit-learn, of mixed kinds, a tenth missing: 354/44/44",
    "lsat6": "answers 0 and 1 of 1000 persons to five test items, embedded: 800/100/100",
}


def by_name(name: str, data_dir: str | Path | None, seed: int) -> Dataset:
    """The data set of a name in :data:`DATASETS`; the seed splits the digits, and no other.

    Raises:
        DatasetError: its files cannot be had, read or trusted.
    """
    if name == "digits":
        return _digits(seed)
    if name in LABELLED:
        return replace(_digits(seed), name=name)
    if name in TABLES:
        values, labels = TABLES[name]()
        return _divided(name, values, labels, len(values) // 10, seed)
    if name == "mnist":
        return _mnist(ready_made(name, data_dir))
    arrays = ready_made(name, data_dir)
    if name == "jsb_chorales":
        return _chorales(arrays)
    train, validation, test = (to_rows(arrays[part]) for part in ("train", "valid", "test"))
    return Dataset(name, train, validation, test, (28, 28))


def beside(name: str, data: Dataset, data_dir: str | Path | None = None) -> dict[str, np.ndarray]:
    """The context of a data set known by name, in the order of all its rows."""
    if name == "jsb_chorales":
        arrays = ready_made(name, data_dir)
        return {"lengths": np.concatenate([arrays[f"lengths_{part}"] for part in PARTS])}
    if name not in LABELLED or data.labels is None or data.rows is None:
        return {}
    return {"labels": LABELLED[name](data.labels, data.rows)}


def _digits(seed: int) -> Dataset:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    data = _divided("digits", values, labels, 250, seed)
    return replace(data, event_shape=(8, 8), total_count=16, own_parts=True)


def _divided(name: str, values: np.ndarray, labels: np.ndarray | None, num_held_out: int, seed: int) -> Dataset:
    """A table in three parts, of which two have so many rows."""
    x, order = to_rows(values), torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    parts = order.split([len(values) - 2 * num_held_out, num_held_out, num_held_out])
    rows = dict(zip(PARTS, parts, strict=True))
    by_part = None if labels is None else {part: torch.tensor(labels)[index] for part, index in rows.items()}
    train, validation, test = (x[index] for index in parts)
    count = int(x.isnan().sum())
    missing = f"{count} of the {x.numel()} values of {name} are missing" if count else ""
    return Dataset(name, train, validation, test, x.shape[1:], by_part, rows=rows, own_parts=False, missing=missing)


def _chorales(arrays: dict[str, np.ndarray]) -> Dataset:
    """A sequence a row, its steps one after another; what stands after its end is 0."""
    lengths = {part: arrays[f"lengths_{part}"] for part in PARTS}
    most = max(int(own.max()) for own in lengths.values())
    parts = []
    for part in PARTS:
        steps = arrays[f"x_{part}"]
        rolls = np.zeros((len(lengths[part]), most, steps.shape[-1]), dtype=steps.dtype)
        rolls[np.arange(most) < lengths[part][:, None]] = steps
        parts.append(to_rows(rolls))
    train, validation, test = parts
    return Dataset("jsb_chorales", train, validation, test, (most, arrays["x_train"].shape[-1]))


def _mnist(arrays: dict[str, np.ndarray]) -> Dataset:
    """The last sixth of the training file, 10 000 pictures, is the validation part."""
    grey, test = to_rows(arrays["x_train"]) / 255, to_rows(arrays["x_test"]) / 255
    labels, test_labels = (torch.tensor(arrays[key], dtype=torch.int64) for key in ("y_train", "y_test"))
    num_train = len(grey) - len(grey) // 6
    return Dataset(
        "mnist",
        grey[:num_train],
        drawn_once(grey[num_train:], BINARISATION_SEED),
        drawn_once(test, BINARISATION_SEED + 1),
        tuple(arrays["x_train"].shape[1:]),
        labels={"train": labels[:num_train], "validation": labels[num_train:], "test": test_labels},
        binarise=True,
    )
