"""The data that the settings of a run name, as their likelihood takes them."""

from __future__ import annotations

from dataclasses import replace

from ppvae.datasets import BYTES, FRACTIONS, Dataset, Split, load_dataset
from ppvae.storage import Settings


def loaded(settings: Settings) -> Dataset:
    """The data that the settings name, with what their likelihood takes of them.

    Raises:
        PpvaeError: they cannot be had.
    """
    parts = {"train": settings.data, "validation": settings.validation_data, "test": settings.test_data}
    data = load_dataset(
        settings.data
        if settings.test_data is None
        else {part: file for part, file in parts.items() if file is not None},
        data_dir=settings.data_dir,
        context=settings.context,
        label_column=settings.label_column,
        drop_columns=settings.drop_columns,
        context_columns=settings.context_columns,
        split=Split(settings.fractions() or FRACTIONS, settings.split_column, settings.stratify),
        standardise=settings.standardise,
    )
    if data.total_count == BYTES and settings.likelihood == "Bernoulli" and not data.missing:
        note = f"x of {data.name} holds bytes: zeros and ones are drawn from x/255, afresh at each step of training."
        return replace(data.binarised(), notes=(*data.notes[:-1], note))
    return data
