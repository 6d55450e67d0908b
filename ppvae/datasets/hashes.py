"""The hash of a data set, by which two runs on the same data are known."""

from __future__ import annotations

import hashlib

from .arrangement import PARTS
from .dataset import Dataset


def data_hash(data: Dataset) -> str:
    """SHA-256 over the three parts and the context of each, in single precision and in the units of their source.

    The units are those after the standardisation where the data stream: they are not read twice for a hash.

    Example:
        >>> import torch
        >>> from ppvae.datasets import load_dataset
        >>> x = torch.arange(1.0, 61.0).reshape(30, 2).sqrt()
        >>> data_hash(load_dataset(x)) == data_hash(load_dataset(x, standardise=True))
        True
    """
    if data.source_hash:
        return data.source_hash
    digest = hashlib.sha256()
    for part in PARTS:
        rows = getattr(data, part)
        digest.update(str(tuple(rows.shape)).encode())
        for values in data.portions(part):
            digest.update(values.float().contiguous().numpy().tobytes())
        for values in data.beside(part):
            digest.update(str(tuple(values.shape)).encode())
            digest.update(values.float().contiguous().numpy().tobytes())
    return digest.hexdigest()
