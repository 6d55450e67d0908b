"""load_dataset: any source of data as a :class:`.Dataset` of rows in three parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ppvae.errors import DataError

from . import leakage
from .arrangement import PARTS, Arranged, Roles, arrange
from .context import contexts, of_columns
from .dataset import Dataset, changed
from .found import Found
from .hashes import data_hash
from .known import DATASETS, beside, by_name
from .large import streamed
from .large_sources import Large, large
from .sources import find
from .splits import Split, demand_three, parts_by_column, random_parts, stratified_parts, with_validation
from .standardise import Standardisation

# Counts that unsigned bytes hold, as pictures do; so large a value shows that they are no zeros and ones.
BYTES, LEAST_OF_PICTURES = 255, 128
# Training rows by which data that are not in memory are standardised; whichever they are, log p(x) has its Jacobian.
STANDARDISED_BY = 100_000


def load_dataset(
    source: Any,
    *,
    data_dir: str | Path | None = None,
    context: Sequence[str | Path] = (),
    label_column: str | None = None,
    drop_columns: Sequence[str] = (),
    context_columns: Sequence[str] = (),
    split: Split | Sequence[float] | str | None = None,
    standardise: bool = False,
    seed: int = 0,
) -> Dataset:
    """A data set as rows in three parts, from a name, a file, or an object in memory.

    A file is ``.npy``, ``.npz``, ``.csv``, ``.tsv``, ``.parquet`` or ``.zarr`` and holds numbers whose first dimension
    counts the data; more dimensions than two are flattened, and an array of one dimension is N data of one number each.
    An ``.npz`` holds one array, or ``x``, or the three arrays ``train``, ``validation`` (or ``valid``) and ``test``;
    what it holds beside ``x`` or these three is context. Of a text table the separator, a decimal comma, the header and
    an index column are found out. Missing values (NaN; an empty cell or NA in a table) are read as NaN, for a pair that
    leaves them out. Data that are not divided are split by ``seed``, and what has as many rows with them.

    A ``.npy``, ``.parquet`` or ``.zarr`` file, an ``np.memmap`` or a torch ``Dataset`` of more than 200 000 rows or
    128 MiB is not read into memory: ``train`` is then :class:`Rows`, and 10 000 validation and test rows at most are
    used. Of such a Parquet file the columns that an option names are held in memory; the others have no names.

    An object is a tensor, an array of numpy, a list of rows, a table of pandas or polars, a tuple ``(x, *context)``, a
    mapping with the keys of an ``.npz``, or ``train`` and ``test`` (and ``validation``), each any source; a torch
    ``Dataset`` or ``DataLoader`` of x, of ``(x, *context)``, of dicts, or of (image, label), as torchvision's
    ``ImageFolder`` is; or an ``AnnData``.

    Unsigned bytes as large as those of pictures are counts up to 255, ``total_count``; ``binarised()`` makes zeros and
    ones of them.

    Args:
        source: see above; a name is one of :data:`DATASETS`.
        data_dir: a folder that already holds ``mnist.npz`` and ``binarized_mnist.npz`` (or the source's own files);
            else the one named by the environment variable ``PPVAE_DATA``; else they are fetched once and cached.
        context: files of what the programs take after x, in their order.
        label_column: a column, or an array beside x, that is not trained on: it colours pictures. ``"none"`` says that
            no column of numbers is a label, where one looks like it.
        drop_columns: columns, or arrays beside x, to be left out.
        context_columns: columns that the programs take after x; text becomes numbers 0, 1, … in alphabetic order.
        split: three fractions, ``(0.8, 0.1, 0.1)`` by default; the name of a column that says train, validation or
            test; or a :class:`Split`, which divides by class too.
        standardise: bring each feature to mean 0 and standard deviation 1 over the training data; the map is kept as
            ``standardisation``, with the Jacobian that densities need.
        seed: of the split; the parts of ``mnist`` and ``binarized_mnist`` are fixed.

    Returns:
        The data set, as rows.

    Raises:
        DatasetError: the name is unknown, or a file cannot be had, read or trusted, or has fewer than 3 rows to split.
        DataError: the content is empty, not numeric, or infinite, or a column may be a label.
        OptionError: a column that was named is not there.

    Example:
        >>> digits = load_dataset("digits")
        >>> digits.train.shape, digits.event_shape, digits.total_count
        (torch.Size([1297, 64]), (8, 8), 16)
        >>> data = load_dataset([[1.5, 0.0, "a"], [2.5, 1.0, "b"], [0.5, 3.0, "a"]], label_column="2")
        >>> data.train.shape, data.label_names
        (torch.Size([1, 2]), ('a', 'b'))
    """
    division = Split.of(split)
    roles = Roles(label_column, _names(drop_columns), _names(context_columns), division.column, division.stratify)
    if isinstance(source, str) and source in DATASETS:
        return _known(source, data_dir, context, roles, standardise, seed)
    if (many := large(source, roles)) is not None:
        return _large(many, roles, division, context, standardise, seed)
    found = find(source)
    arranged = arrange(found, roles)
    num_data = sum(len(part) for part in arranged.parts)
    for name, values in (("label", arranged.label), ("split column", arranged.split), ("strata", arranged.stratify)):
        if values is not None and len(values) != num_data:
            raise DataError(
                f"the {name} of {found.what} has {len(values)} values for {num_data} data: give one for each."
            )
    data = _divided(found, arranged, division, seed)
    asked = [*of_columns({name: arranged.context[name] for name in arranged.chosen}, num_data, found.what)]
    plain = {name: values for name, values in arranged.context.items() if name not in arranged.chosen}
    more = contexts(context, plain, num_data, found.what, by_name=found.by_name)
    codes = {name: arranged.names.get(name, ()) for name in arranged.chosen}
    data = replace(data, context=(*more, *asked), notes=(*_codes(codes), *_bytes(data)))
    return _standardised(data, found.what) if standardise else data


def _names(given: Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(map(str, given))


def _known(
    name: str, data_dir: str | Path | None, context: Sequence[str | Path], roles: Roles, standardise: bool, seed: int
) -> Dataset:
    """A data set by its name, which has no columns."""
    if roles.asked:
        option = next(iter(roles.asked.values()))
        raise DataError(f"{name} has no columns and parts of its own: leave {option} out.")
    data = by_name(name, data_dir, seed)
    num_data = sum(len(getattr(data, part)) for part in PARTS)
    data = replace(data, context=tuple(contexts(context, beside(name, data, data_dir), num_data, name)))
    return _standardised(data, name) if standardise else data


def _large(
    found: Large, roles: Roles, split: Split, context: Sequence[str | Path], standardise: bool, seed: int
) -> Dataset:
    """A data set that is not read into memory."""
    data = streamed(found, split, roles, seed)
    total = data.train.stored.shape[0]  # type: ignore[attr-defined]
    columns = {name: found.beside[name] for name in roles.context}
    asked = of_columns({name: values for name, (values, _) in columns.items()}, total, found.what)
    codes = _codes({name: words for name, (_, words) in columns.items()})
    data = replace(
        data, context=(*contexts(context, {}, total, found.what), *asked), notes=(*data.notes, *codes, *_bytes(data))
    )
    return _standardised(data, found.what) if standardise else data


def _divided(found: Found, arranged: Arranged, split: Split, seed: int) -> Dataset:
    """The data in three parts, with their labels."""
    sizes = [len(part) for part in arranged.parts]
    own_parts = len(sizes) > 1
    sizes = [sizes[0], 0, sizes[1]] if len(sizes) == 2 else sizes  # no validation data of their own
    x = torch.cat(arranged.parts)
    if own_parts and (arranged.split is not None or arranged.stratify is not None):
        raise DataError(f"{found.what} has its parts already: leave the split column and stratify out.")
    if own_parts:
        rows = with_validation(list(torch.arange(len(x)).split(sizes)), split, seed, found.what)
    elif arranged.split is not None:
        demand_three(len(x), found.what)
        rows = parts_by_column(arranged.split, split, seed, found.what)
    elif arranged.stratify is not None:
        rows = stratified_parts(arranged.stratify, split, seed, found.what)
    else:
        rows = random_parts(len(x), split, seed, found.what)
    train, validation, test = (x[index] for index in rows)
    shape = arranged.datum_shape
    names = dict(zip(PARTS, rows, strict=True))
    largest = float(x.nan_to_num().max())
    label = None if arranged.label is None else torch.as_tensor(arranged.label)
    copies = {part: leakage.duplicates(train, each) for part, each in (("validation", validation), ("test", test))}
    return Dataset(
        found.name,
        train,
        validation,
        test,
        shape or (1,),
        labels=None if label is None else {part: label[index] for part, index in names.items()},
        label_names=arranged.label_names,
        total_count=BYTES if arranged.is_bytes and largest >= LEAST_OF_PICTURES else None,
        rows=names,
        own_parts=own_parts,
        datum_shape=shape,
        missing=arranged.missing,
        columns=arranged.columns,
        duplicates=copies,
    )


def _codes(names: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Which number stands for which word, where a context column was text."""
    found = []
    for name, words in names.items():
        if words:
            listed = ", ".join(f"{word} {i}" for i, word in enumerate(words[:10])) + (", …" if len(words) > 10 else "")
            found.append(f"the context column {name!r} is given to the programs as numbers: {listed}.")
    return found


def _bytes(data: Dataset) -> list[str]:
    """That unsigned bytes are counts."""
    if data.total_count != BYTES:
        return []
    return [
        f"x of {data.name} holds bytes: they are taken as counts up to 255, for the likelihood Binomial(255); the "
        "likelihood Bernoulli draws zeros and ones from x/255 afresh at each step, as for mnist."
    ]


def _standardised(data: Dataset, what: str) -> Dataset:
    if data.total_count is not None or data.binarise:
        raise DataError(f"{what} holds counts, or zeros and ones, which have no units: leave --standardise out.")
    units = Standardisation.of(data.some(STANDARDISED_BY), what, data.columns)
    kept = int((units.scale == 1).logical_and(units.mean == 0).sum())
    zeros = f", but for {kept} columns of zeros and ones" if kept else ""
    of_some = f" ({STANDARDISED_BY} of them, evenly spaced)" if data.streams else ""
    note = (
        f"x was standardised by the means and standard deviations of the training data{of_some}{zeros}; log p(x) and "
        "ELBO are those of x in its own units, with the Jacobian −Σ log s in them; pictures show x standardised."
    )
    parts = {part: changed(getattr(data, part), units.apply) for part in PARTS}
    own = "" if data.streams else data_hash(data)
    return replace(data, **parts, standardisation=units, source_hash=own, notes=(*data.notes, note))
