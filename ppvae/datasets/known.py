"""The data sets that are known by name, as their likelihood sees them: counts, or zeros and ones."""

from pathlib import Path

import numpy as np
import torch

from .arrangement import PARTS
from .arrays import to_rows
from .dataset import BINARISATION_SEED, Dataset, drawn_once
from .downloads import ready_made

DATASETS = {
    "digits": "8x8 handwritten digits of scikit-learn, counts 0..16, embedded: 1297/250/250",
    "mnist": "28x28 grey digits, binarised afresh at each draw (validation and test once): 50000/10000/10000",
    "binarized_mnist": "MNIST in the fixed binarisation of Larochelle and Murray: 50000/10000/10000",
}


def by_name(name: str, data_dir: str | Path | None, seed: int) -> Dataset:
    """The data set of a name in :data:`DATASETS`; the seed splits the digits, and no other.

    Raises:
        DatasetError: its files cannot be had, read or trusted.
    """
    if name == "digits":
        return _digits(seed)
    if name == "mnist":
        return _mnist(ready_made(name, data_dir))
    arrays = ready_made(name, data_dir)
    train, validation, test = (to_rows(arrays[part]) for part in ("train", "valid", "test"))
    return Dataset(name, train, validation, test, (28, 28))


def _digits(seed: int) -> Dataset:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    parts = order.split([len(values) - 500, 250, 250])
    train, validation, test = (to_rows(values)[part] for part in parts)
    by_part = dict(zip(PARTS, (torch.tensor(labels)[part] for part in parts), strict=True))
    rows = dict(zip(PARTS, parts, strict=True))
    return Dataset("digits", train, validation, test, (8, 8), labels=by_part, total_count=16, rows=rows)


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
