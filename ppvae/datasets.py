"""Data sets: three by name, and a user's own files by path.

Every data set arrives as rows, split into a training, a validation and a test part, and as its likelihood sees it:
counts for the digits, zeros and ones for a binarised picture. The files of ``mnist`` and ``binarized_mnist`` are
trusted for what they hold: each array must have the SHA-256 stated here, whichever file it came in.
"""

import csv
import difflib
import hashlib
import os
import tempfile
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import DataError, DatasetError, RunError
from ppvae.files import atomic_path

DATASETS = {
    "digits": "8x8 handwritten digits of scikit-learn, counts 0..16, embedded: 1297/250/250",
    "mnist": "28x28 grey digits, binarised afresh at each draw (validation and test once): 50000/10000/10000",
    "binarized_mnist": "MNIST in the fixed binarisation of Larochelle and Murray: 50000/10000/10000",
}

# What the readers of numpy, pandas and the standard library raise over a file that is not what it should be.
_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    csv.Error,
)

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
        return _mnist(_ready_made(name, data_dir))
    if name == "binarized_mnist":
        arrays = _ready_made(name, data_dir)
        train, validation, test = (_rows(arrays[part]) for part in ("train", "valid", "test"))
        return Dataset(name, train, validation, test, (28, 28))
    return _own(Path(name).expanduser(), seed)


# --- the three by name


def _digits(seed: int) -> Dataset:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    parts = _split(len(values), 250, seed)
    train, validation, test = (_rows(values)[part] for part in parts)
    by_part = dict(zip(("train", "validation", "test"), (torch.tensor(labels)[part] for part in parts), strict=True))
    return Dataset("digits", train, validation, test, (8, 8), labels=by_part, total_count=16)


def _mnist(arrays: dict[str, np.ndarray]) -> Dataset:
    """The last sixth of the training file, 10 000 pictures, is the validation part."""
    grey, test = _rows(arrays["x_train"]) / 255, _rows(arrays["x_test"]) / 255
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


def _rows(array: np.ndarray) -> Tensor:
    """(N, ...) numbers as (N, D) in torch's default type."""
    dtype = torch.get_default_dtype()
    with np.errstate(over="ignore"):  # what becomes infinite is reported as not finite, by row and column
        # A copy, so that the tensor never writes into memory that another holds.
        flat = np.array(array, dtype=np.float64 if dtype == torch.float64 else np.float32, order="C")
    return torch.from_numpy(flat.reshape(len(flat), prod(array.shape[1:]))).to(dtype)


# --- ready-made files: found in a folder, or fetched once


@dataclass(frozen=True)
class _Source:
    """Where a data set comes from, the SHA-256 of its files there, and shape and SHA-256 of the arrays they hold."""

    base_url: str
    files: dict[str, str]
    arrays: dict[str, tuple[tuple[int, ...], str]]
    parse: Callable[[Path], dict[str, np.ndarray]]


def _parse_npz(folder: Path) -> dict[str, np.ndarray]:
    return _read_npz(folder / "mnist.npz")


def _parse_amat(folder: Path) -> dict[str, np.ndarray]:
    """Lines of 784 digits, each followed by one blank or the line's end: every second byte is a pixel."""
    arrays = {}
    for part in ("train", "valid", "test"):
        text = np.frombuffer((folder / f"binarized_mnist_{part}.amat").read_bytes(), dtype=np.uint8)
        arrays[part] = text.reshape(-1, 2 * 784)[:, ::2] - ord("0")
    return arrays


_SOURCES = {
    "mnist": _Source(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
        {"mnist.npz": "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"},
        {
            "x_train": ((60000, 28, 28), "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757"),
            "y_train": ((60000,), "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13"),
            "x_test": ((10000, 28, 28), "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161"),
            "y_test": ((10000,), "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5"),
        },
        _parse_npz,
    ),
    "binarized_mnist": _Source(
        "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist",
        {
            "binarized_mnist_train.amat": "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
            "binarized_mnist_valid.amat": "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
            "binarized_mnist_test.amat": "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
        },
        {
            "train": ((50000, 784), "43490d4d6ac9002727af4426d8748609fdb7e4094fa65ad8d681ea60082a7a5a"),
            "valid": ((10000, 784), "069b4f0beb389b776478c3e872b4df71c95ac4be64d7cbe6d32e24ebac8e6d5e"),
            "test": ((10000, 784), "ca0294c3b8d984c7a1dc891015a8eea6f37bae59a34e35ea0fc8c47110a8dd86"),
        },
        _parse_amat,
    ),
}
_WAY_OUT = "set PPVAE_DATA or --data-dir to a folder that has it, or connect to the network and try again"


def _ready_made(name: str, data_dir: str | Path | None) -> dict[str, np.ndarray]:
    """The verified arrays of ``name``, from the folder the user named or else from the cache."""
    named = data_dir or os.environ.get("PPVAE_DATA")
    if named:
        return _from_folder(Path(named).expanduser(), name)
    import pooch

    cache = Path(pooch.os_cache("ppvae"))
    cached = cache / f"{name}.npz"
    if not cached.is_file():
        _fetch(name, cache)
    return _verified(_read_npz(cached), name, f"{cached} (delete it, and it is fetched again)")


def _from_folder(folder: Path, name: str) -> dict[str, np.ndarray]:
    source, packed = _SOURCES[name], folder / f"{name}.npz"
    if packed.is_file():
        return _verified(_read_npz(packed), name, str(packed))
    if not all((folder / file).is_file() for file in source.files):
        raise DatasetError(f"{packed} does not exist: {_WAY_OUT} without PPVAE_DATA and --data-dir.")
    return _verified(_parsed(folder, name), name, ", ".join(str(folder / file) for file in source.files))


def _fetch(name: str, cache: Path) -> None:
    """Download the source's files, and keep in ``cache`` only what they hold, packed, so that text is parsed once."""
    import pooch

    source = _SOURCES[name]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            for file, sha256 in source.files.items():
                pooch.retrieve(
                    f"{source.base_url}/{file}",
                    known_hash=f"sha256:{sha256}",
                    fname=file,
                    path=folder,
                    downloader=_download,
                )
            arrays = _verified(_parsed(Path(folder), name), name, source.base_url)
        with atomic_path(cache / f"{name}.npz") as temporary:
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    except DatasetError:
        raise
    except RunError as error:
        raise DatasetError(str(error)) from error
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{name} could not be fetched from {source.base_url} ({_why(error)}): {_WAY_OUT}."
        ) from error


def _download(url: str, output_file: str, pooch: object) -> None:
    """What pooch's own downloader does, but the connection is closed also when it breaks."""
    import requests

    with requests.get(url, stream=True, timeout=30) as response:
        response.raise_for_status()
        with open(output_file, "wb") as file:
            for chunk in response.iter_content(2**20):
                file.write(chunk)


def _why(error: Exception) -> str:
    """A download's failure in few words; the whole story stays in the error's cause."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code}"
    if isinstance(error, requests.RequestException):
        return "no connection, or it broke"
    return str(error) if isinstance(error, OSError) else "wrong SHA-256"  # which is pooch's ValueError


def _parsed(folder: Path, name: str) -> dict[str, np.ndarray]:
    try:
        return _SOURCES[name].parse(folder)
    except (OSError, ValueError) as error:
        raise DatasetError(f"the files of {name} in {folder} are damaged ({error}): get them again.") from error


def _verified(arrays: dict[str, np.ndarray], name: str, where: str) -> dict[str, np.ndarray]:
    """The arrays that belong to ``name``, once shape, type and SHA-256 of their bytes are the stated ones."""
    for key, (shape, sha256) in _SOURCES[name].arrays.items():
        if key not in arrays:
            raise DatasetError(f"array {key!r} is missing from {where}: get {name} again.")
        array = np.ascontiguousarray(arrays[key])
        same = array.shape == shape and array.dtype == np.uint8
        if not same or hashlib.sha256(array.tobytes()).hexdigest() != sha256:
            raise DatasetError(f"array {key!r} in {where} is not that of {name} (wrong SHA-256): get {name} again.")
    return {key: arrays[key] for key in _SOURCES[name].arrays}


# --- the user's own files


def _own(path: Path, seed: int) -> Dataset:
    arrays = _read(path)
    if len(arrays) == 1:
        ((what, columns, array),) = arrays
        rows = _checked(array, what, columns)
        if len(rows) < 3:
            raise DatasetError(f"{path} has {len(rows)} rows: give at least 3, one each to train, validate and test.")
        train, validation, test = (rows[part] for part in _split(len(rows), max(1, len(rows) // 10), seed))
        return Dataset(path.name, train, validation, test, array.shape[1:] or (1,))
    train, validation, test = (_checked(array, what, columns) for what, columns, array in arrays)
    shapes = [array.shape[1:] or (1,) for _, _, array in arrays]
    if len(set(shapes)) > 1:
        raise DataError(f"train, validation and test in {path} hold data of different shapes {shapes}: make them one.")
    return Dataset(path.name, train, validation, test, shapes[0])


_Named = tuple[str, Sequence[object] | None, np.ndarray]  # what to call an array in a message, its columns' names, it


def _read(path: Path) -> list[_Named]:
    """The file's one array, or its three parts in their order."""
    suffix = path.suffix.lower()
    readers: dict[str, Callable[[Path], list[_Named]]] = {
        ".npy": lambda path: [(str(path), None, _load_npy(path))],
        ".npz": _read_parts,
        ".csv": _read_csv,
        ".parquet": _read_parquet,
    }
    if suffix not in readers:
        raise DatasetError(_unknown(path, tuple(readers)))
    if not path.is_file():
        raise DatasetError(f"there is no file {path}: correct the path, or give one of {', '.join(DATASETS)}.")
    try:
        return readers[suffix](path)
    except (DataError, DatasetError):
        raise
    except ImportError as error:
        raise DatasetError(f"{path} needs pyarrow: install it with `pip install pyarrow`, or write a .npy.") from error
    except _DAMAGE as error:
        raise DatasetError(f"{path} cannot be read as {suffix} ({error}): write it again.") from error


def _unknown(path: Path, suffixes: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(str(path), DATASETS, n=1, cutoff=0.5)
    guess = f" (did you mean {near[0]!r}?)" if near else ""
    known, files = ", ".join(DATASETS), ", ".join(suffixes)
    return f"there is no data set {str(path)!r}{guess}: give one of {known}, or a path that ends in {files}."


def _load_npy(path: Path) -> np.ndarray:
    with path.open("rb") as file:  # a file that numpy opens by itself stays open when it is damaged
        array = np.load(file, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it is an archive of arrays, a .npz")
    return array


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """Every array of an archive; whatever numpy raises over a damaged one becomes one sentence."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is a single array, a .npy")
            return {key: archive[key] for key in archive.files}
    except _DAMAGE as error:
        raise DatasetError(f"{path} is damaged or no .npz of plain arrays ({error}): get or write it again.") from error


def _read_parts(path: Path) -> list[_Named]:
    arrays = _read_npz(path)
    if "valid" in arrays:
        arrays.setdefault("validation", arrays["valid"])
    keys = ["train", "validation", "test"] if {"train", "validation", "test"} <= set(arrays) else list(arrays)
    if len(keys) not in (1, 3) or (len(keys) == 3 and "train" not in keys):
        found = ", ".join(sorted(arrays)) or "none"
        raise DatasetError(f"{path} holds the arrays {found}: give one array, or train, validation and test.")
    return [(f"array {key!r} of {path}", None, arrays[key]) for key in keys]


def _read_csv(path: Path) -> list[_Named]:
    import pandas as pd

    with path.open(newline="", encoding="utf-8-sig") as file:
        first = next(csv.reader(file), None)
    if first is None:
        raise DataError(f"{path} is empty: give at least 3 rows.")
    if "" in first:
        # The column of row numbers that pandas adds would be taken for data.
        raise DataError(
            f"the first line of {path} has an empty cell: fill it, or drop the index (index=False in pandas)."
        )
    is_header = not all(map(_is_number, first)) or (len(first) > 2 and first == [str(i) for i in range(len(first))])
    with warnings.catch_warnings():
        # pandas would drop the cells of a row that is longer than the first, and only warn.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame = pd.read_csv(path, header=0 if is_header else None, encoding="utf-8-sig", index_col=False)
        except pd.errors.ParserWarning as error:
            raise DatasetError(f"{path} has rows of different lengths ({error}): give each the same.") from error
    return [_from_frame(frame, path)]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> list[_Named]:
    import pandas as pd

    return [_from_frame(pd.read_parquet(path), path)]


def _from_frame(frame, path: Path) -> _Named:
    from pandas.api.types import is_numeric_dtype

    if frame.empty:
        raise DataError(
            f"{path} has {len(frame)} rows and {len(frame.columns)} columns: give at least 3 rows of numbers."
        )
    for column, dtype in frame.dtypes.items():
        if not is_numeric_dtype(dtype):
            raise DataError(f"column {column!r} of {path} does not hold numbers ({dtype}): drop or encode it.")
    return str(path), list(frame.columns), frame.to_numpy(dtype=np.float64, na_value=np.nan)


def _checked(array: np.ndarray, what: str, columns: Sequence[object] | None) -> Tensor:
    """The array as rows, once it is known to hold finite real numbers."""
    if array.dtype.kind not in "buif":
        raise DataError(f"{what} holds {array.dtype}: give real numbers.")
    if array.ndim == 0 or array.size == 0:
        raise DataError(f"{what} has shape {array.shape}: give one row for each datum, with at least one number each.")
    rows = _rows(array)
    wrong = ~torch.isfinite(rows)
    if wrong.any():
        row, column = wrong.nonzero()[0].tolist()
        label = repr(columns[column]) if columns is not None else column
        count = int(wrong.sum())
        raise DataError(
            f"{what} has {count} missing, infinite or overlarge value{'s' * (count > 1)}, the first in row {row}, "
            f"column {label} (counted from 0): remove or replace such values."
        )
    return rows
