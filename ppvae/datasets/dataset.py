"""Data sets by name, and from a user's own files by path.

Every data set arrives as rows, split into a training, a validation and a test part, and as its likelihood sees it:
counts for the digits, zeros and ones for a binarised picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import DatasetError, suggestion

from .arrays import split, to_rows
from .context import Context, contexts
from .downloads import ready_made
from .tables import LABELLED, TABLES
from .user_files import PARTS, SUFFIXES, read_user_file

DATASETS = {
    "digits": "8x8 handwritten digits of scikit-learn, counts 0..16, embedded: 1297/250/250",
    "labelled_digits": "the digits with their labels 0..9 as context",
    "few_labels": "the digits with labels as context, of which 200 training data keep theirs and others have -1",
    "mnist": "28x28 grey digits, binarised afresh at each draw (validation and test once): 50000/10000/10000",
    "binarized_mnist": "MNIST in the fixed binarisation of Larochelle and Murray: 50000/10000/10000",
    "breast_cancer": "30 measurements of tumours of scikit-learn, standardised, embedded: 457/56/56",
    "breast_cancer_missing": "the same; in every other column most of the values above the mean are missing",
    "lsat6": "answers 0 and 1 of 1000 persons to five test items, embedded: 800/100/100",
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
        context: what the programs take after x, in their order.
        rows: the row numbers of each part among all data, by part, by which context is cut; none where there are none.
        own_parts: whether the parts are the data set's own; else a seed has made them.
        datum_shape: the shape of one datum as its file has it; None where that is ``event_shape``.
        missing: how many values of a file are missing (NaN), and where the first is, in words; empty where none are.
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    event_shape: tuple[int, ...]
    labels: dict[str, Tensor] | None = None
    total_count: int | None = None
    binarise: bool = False
    context: tuple[Context, ...] = ()
    rows: dict[str, Tensor] | None = None
    own_parts: bool = True
    datum_shape: tuple[int, ...] | None = None
    missing: str = ""

    @property
    def divided(self) -> bool:
        """Whether there are data that are not trained on."""
        return len(self.test) > 0

    def batch(self, part: str, index: Tensor | slice = slice(None)) -> tuple[Tensor, ...]:
        """``(x, *context)`` of a part, or of some of its rows.

        Args:
            part: ``"train"``, ``"validation"`` or ``"test"``.
            index: which of its rows; all by default.
        """
        x = getattr(self, part)[index]
        if not any(one.by_row for one in self.context):
            return (x, *(one.values for one in self.context))
        rows = self._row_numbers()[part][index]
        return (x, *(one.values[rows] if one.by_row else one.values for one in self.context))

    def undivided(self) -> "Dataset":
        """All data as the training part, in the order of their file; of a data set with parts of its own, the first."""
        rows = self._row_numbers()
        x, numbers = self.train, rows["train"]
        if not self.own_parts:
            order = torch.cat([rows[part] for part in PARTS])
            x = torch.cat([self.train, self.validation, self.test])[order.argsort()]
            numbers = order.sort().values
        none = {"validation": numbers[:0], "test": numbers[:0]}
        return replace(self, train=x, validation=x[:0], test=x[:0], rows={"train": numbers, **none})

    def as_in_file(self) -> "Dataset":
        """The data with the shape that the file gives them, which may be numbers or pictures instead of rows."""
        shape = self.event_shape if self.datum_shape is None else self.datum_shape
        return replace(self, **{part: getattr(self, part).reshape(-1, *shape) for part in PARTS})

    def _row_numbers(self) -> dict[str, Tensor]:
        if self.rows is not None:
            return self.rows
        numbers = torch.arange(sum(len(getattr(self, part)) for part in PARTS))
        sizes = [len(getattr(self, part)) for part in PARTS]
        return dict(zip(PARTS, numbers.split(sizes), strict=True))

    def draw(self, rows: Tensor) -> Tensor:
        """Return training rows as they enter one step: a fresh Bernoulli draw of grey rows, other rows unchanged.

        Args:
            rows: ``(batch, num_features)``, rows of ``train``.

        Returns:
            The rows as the likelihood sees them, same shape; fresh draws use torch's global generator.
        """
        return torch.bernoulli(rows) if self.binarise else rows


def load_dataset(
    name_or_path: str | Path,
    *,
    data_dir: str | Path | None = None,
    context: Sequence[str | Path] = (),
    seed: int = 0,
) -> Dataset:
    """Load a data set by name, or the user's own data from a file.

    A file is ``.npy``, ``.npz``, ``.csv`` or ``.parquet`` and holds numbers whose first dimension counts the data; more
    dimensions than two are flattened, and an array of one dimension is N data of one number each. An ``.npz`` holds
    one array, or ``x``, or the three arrays ``train``, ``validation`` (or ``valid``) and ``test``; what it holds beside
    ``x`` or these three is context. A single array is split 80/10/10 by ``seed``, and its context, where that has as
    many rows, with it. The first line of a ``.csv`` is a header if a
    cell of it is not a number, or if it reads 0,1,2,... over three columns or more, as pandas writes columns that have
    no names. Missing values (NaN; an empty cell or NA in a table) are read as NaN, for a pair that leaves them out.

    Args:
        name_or_path: a name in :data:`DATASETS`, or a path.
        data_dir: a folder that already holds ``mnist.npz`` and ``binarized_mnist.npz`` (or the source's own files);
            else the one named by the environment variable ``PPVAE_DATA``; else they are fetched once and cached.
        context: files of what the programs take after x, in their order: ``.npy``, ``.npz`` with one array, ``.csv`` or
            ``.parquet``.
        seed: the split of ``digits`` and of a single array; the parts of the other data sets are fixed.

    Returns:
        The data set, as rows.

    Raises:
        DatasetError: the name is unknown, or a file cannot be had, read or trusted, or has fewer than 3 rows to split.
        DataError: the file's content is empty, not numeric, or infinite.

    Example:
        >>> digits = load_dataset("digits")
        >>> digits.train.shape, digits.event_shape, digits.total_count
        (torch.Size([1297, 64]), (8, 8), 16)
    """
    data, arrays = _load(str(name_or_path), data_dir, seed)
    num_data = sum(len(getattr(data, part)) for part in PARTS)
    return replace(data, context=tuple(contexts(context, arrays, num_data, data.name)))


def _load(name: str, data_dir: str | Path | None, seed: int) -> tuple[Dataset, dict[str, np.ndarray]]:
    """The data, and what their archive holds beside them."""
    if name in LABELLED:
        data = _digits(seed)
        return replace(data, name=name), {"labels": LABELLED[name](data.labels, data.rows)}
    if name in DATASETS:
        return _by_name(name, data_dir, seed), {}
    return _from_file(Path(name).expanduser(), seed)


def _by_name(name: str, data_dir: str | Path | None, seed: int) -> Dataset:
    if name == "digits":
        return _digits(seed)
    if name in TABLES:
        values, labels = TABLES[name]()
        return _divided(name, values, labels, len(values) // 10, seed)
    if name == "mnist":
        return _mnist(ready_made(name, data_dir))
    arrays = ready_made(name, data_dir)
    train, validation, test = (to_rows(arrays[part]) for part in ("train", "valid", "test"))
    return Dataset(name, train, validation, test, (28, 28))


def _digits(seed: int) -> Dataset:
    from sklearn.datasets import load_digits

    data = _divided("digits", *load_digits(return_X_y=True), 250, seed)
    return replace(data, event_shape=(8, 8), total_count=16, own_parts=True)


def _divided(name: str, values: np.ndarray, labels: np.ndarray | None, num_held_out: int, seed: int) -> Dataset:
    parts, x = split(len(values), num_held_out, seed), to_rows(values)
    rows = dict(zip(PARTS, parts, strict=True))
    by_part = None if labels is None else {part: torch.tensor(labels)[index] for part, index in rows.items()}
    train, validation, test = (x[index] for index in parts)
    count = int(x.isnan().sum())
    missing = f"{count} of the {x.numel()} values of {name} are missing" if count else ""
    return Dataset(name, train, validation, test, x.shape[1:], by_part, rows=rows, own_parts=False, missing=missing)


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


def _from_file(path: Path, seed: int) -> tuple[Dataset, dict[str, np.ndarray]]:
    if path.suffix.lower() not in SUFFIXES:
        raise DatasetError(_unknown(path))
    if not path.is_file():
        raise DatasetError(f"there is no file {path}: correct the path, or give one of {', '.join(DATASETS)}.")
    parts, shape, context, missing = read_user_file(path)
    own_parts, rows = len(parts) > 1, None
    if not own_parts:
        (x,) = parts
        if len(x) < 3:
            raise DatasetError(f"{path} has {len(x)} rows: give at least 3, one each to train, validate and test.")
        order = split(len(x), max(1, len(x) // 10), seed)
        parts, rows = [x[part] for part in order], dict(zip(PARTS, order, strict=True))
    train, validation, test = parts
    data = Dataset(path.name, train, validation, test, shape or (1,), rows=rows, own_parts=own_parts, datum_shape=shape)
    return replace(data, missing=missing), context


def _unknown(path: Path) -> str:
    known, files = ", ".join(DATASETS), ", ".join(SUFFIXES)
    what = f"there is no data set {str(path)!r}{suggestion(str(path), DATASETS)}"
    return f"{what}: give one of {known}, or a path that ends in {files}."
