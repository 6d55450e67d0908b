"""Data sets by name, and from a user's own files by path.

Every data set arrives as rows, split into a training, a validation and a test part, and as its likelihood sees it:
counts for the digits, zeros and ones for a binarised picture.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import DatasetError, suggestion

from .arrays import to_rows
from .downloads import ready_made
from .user_files import SUFFIXES, read_user_file

DATASETS = {
    "digits": "8x8 handwritten digits of scikit-learn, counts 0..16, embedded: 1297/250/250",
    "mnist": "28x28 grey digits, binarised afresh at each draw (validation and test once): 50000/10000/10000",
    "binarized_mnist": "MNIST in the fixed binarisation of Larochelle and Murray: 50000/10000/10000",
}

# Grey validation and test pictures are binarised with this seed whatever the run's own, so that runs can be compared.
_BINARISATION_SEED = 20110411


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows of data in three parts, in torch's default floating-point type.

    Attributes:
        name: the data set's name, or the file's.
        train: ``(num_train, num_features)``; for ``mnist`` the grey values in [0, 1] that :meth:`draw` binarises.
        validation: ``(num_validation, num_features)``, as the likelihood sees them.
        test: ``(num_test, num_features)``, as the likelihood sees them.
        event_shape: the shape of one datum before it was flattened, (8, 8) for the digits.
        labels: class labels by part (``"train"``, ``"validation"``, ``"test"``) where they exist.
        total_count: the largest count where the values are counts (digits: 16).
        binarise: whether a training step draws zeros and ones from grey rows.
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    event_shape: tuple[int, ...]
    labels: dict[str, Tensor] | None = None
    total_count: int | None = None
    binarise: bool = False

    def draw(self, rows: Tensor) -> Tensor:
        """Return training rows as they enter one step: a fresh Bernoulli draw of grey rows, other rows unchanged.

        Args:
            rows: ``(batch, num_features)``, rows of ``train``.

        Returns:
            The rows as the likelihood sees them, same shape; fresh draws use torch's global generator.
        """
        return torch.bernoulli(rows) if self.binarise else rows


def load_dataset(name_or_path: str | Path, *, data_dir: str | Path | None = None, seed: int = 0) -> Dataset:
    """Load a data set by name, or the user's own data from a file.

    A file is ``.npy``, ``.npz``, ``.csv`` or ``.parquet`` and holds numbers whose first dimension counts the data; more
    dimensions than two are flattened, and an array of one dimension is N data of one number each. An ``.npz`` holds
    either one array or the three arrays ``train``, ``validation`` (or ``valid``) and ``test``; others beside these
    three are left unread. A single array is split 80/10/10 by ``seed``. The first line of a ``.csv`` is a header if a
    cell of it is not a number, or if it reads 0,1,2,... over three columns or more, as pandas writes columns that have
    no names.

    Args:
        name_or_path: a name in :data:`DATASETS`, or a path.
        data_dir: a folder that already holds ``mnist.npz`` and ``binarized_mnist.npz`` (or the source's own files);
            else the one named by the environment variable ``PPVAE_DATA``; else they are fetched once and cached.
        seed: the split of ``digits`` and of a single array; the parts of the other data sets are fixed.

    Returns:
        The data set, as rows.

    Raises:
        DatasetError: the name is unknown, or a file cannot be had, read or trusted, or has fewer than 3 rows to split.
        DataError: the file's content is empty, not numeric, or not finite.

    Example:
        >>> digits = load_dataset("digits")
        >>> digits.train.shape, digits.event_shape, digits.total_count
        (torch.Size([1297, 64]), (8, 8), 16)
    """
    name = str(name_or_path)
    if name == "digits":
        return _digits(seed)
    if name == "mnist":
        return _mnist(ready_made(name, data_dir))
    if name == "binarized_mnist":
        arrays = ready_made(name, data_dir)
        train, validation, test = (to_rows(arrays[part]) for part in ("train", "valid", "test"))
        return Dataset(name, train, validation, test, (28, 28))
    return _from_file(Path(name).expanduser(), seed)


def _digits(seed: int) -> Dataset:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    parts = _split(len(values), 250, seed)
    train, validation, test = (to_rows(values)[part] for part in parts)
    by_part = dict(zip(("train", "validation", "test"), (torch.tensor(labels)[part] for part in parts), strict=True))
    return Dataset("digits", train, validation, test, (8, 8), labels=by_part, total_count=16)


def _mnist(arrays: dict[str, np.ndarray]) -> Dataset:
    """The last sixth of the training file, 10 000 pictures, is the validation part."""
    grey, test = to_rows(arrays["x_train"]) / 255, to_rows(arrays["x_test"]) / 255
    labels, test_labels = (torch.tensor(arrays[key], dtype=torch.int64) for key in ("y_train", "y_test"))
    num_train = len(grey) - len(grey) // 6
    return Dataset(
        "mnist",
        grey[:num_train],
        _binarised_once(grey[num_train:], _BINARISATION_SEED),
        _binarised_once(test, _BINARISATION_SEED + 1),
        tuple(arrays["x_train"].shape[1:]),
        labels={"train": labels[:num_train], "validation": labels[num_train:], "test": test_labels},
        binarise=True,
    )


def _binarised_once(grey: Tensor, seed: int) -> Tensor:
    # Uniforms in double precision make the draw the same whatever the default type is.
    uniform = torch.rand(grey.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (uniform < grey).to(grey.dtype)


def _split(num_data: int, num_held_out: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Row numbers of the training, validation and test part, from one random order."""
    order = torch.randperm(num_data, generator=torch.Generator().manual_seed(seed))
    num_train = num_data - 2 * num_held_out
    return order[:num_train], order[num_train : num_train + num_held_out], order[num_train + num_held_out :]


def _from_file(path: Path, seed: int) -> Dataset:
    if path.suffix.lower() not in SUFFIXES:
        raise DatasetError(_unknown(path))
    if not path.is_file():
        raise DatasetError(f"there is no file {path}: correct the path, or give one of {', '.join(DATASETS)}.")
    parts, event_shape = read_user_file(path)
    if len(parts) == 1:
        (rows,) = parts
        if len(rows) < 3:
            raise DatasetError(f"{path} has {len(rows)} rows: give at least 3, one each to train, validate and test.")
        parts = [rows[part] for part in _split(len(rows), max(1, len(rows) // 10), seed)]
    train, validation, test = parts
    return Dataset(path.name, train, validation, test, event_shape)


def _unknown(path: Path) -> str:
    known, files = ", ".join(DATASETS), ", ".join(SUFFIXES)
    what = f"there is no data set {str(path)!r}{suggestion(str(path), DATASETS)}"
    return f"{what}: give one of {known}, or a path that ends in {files}."
