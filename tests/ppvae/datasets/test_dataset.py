"""The three data sets by name, and what is met with an unknown one."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ppvae.datasets import DATASETS, Dataset, known, load_dataset
from ppvae.errors import DatasetError

PROJECT = Path(__file__).resolve().parents[2]
READY_MADE = Path(os.environ.get("PPVAE_DATA") or PROJECT.parent / "shared" / "data")
PARTS = ("train", "validation", "test")


def _labels(data: Dataset, part: str) -> list[int]:
    assert data.labels is not None
    return data.labels[part].tolist()


def _message(error: type[Exception], *args, **options) -> str:
    with pytest.raises(error) as caught:
        load_dataset(*args, **options)
    return str(caught.value)


# --- digits


def test_digits_are_counts_in_pictures_of_8_by_8():
    digits = load_dataset("digits")
    assert [getattr(digits, part).shape for part in PARTS] == [(1297, 64), (250, 64), (250, 64)]
    assert (
        repr(digits) == "Dataset digits: 1297 train, 250 validation, 250 test data of shape 8 × 8\n10 classes of labels"
    )
    assert "8 × 8" in digits._repr_html_()
    assert (digits.name, digits.event_shape, digits.total_count, digits.binarise) == ("digits", (8, 8), 16, False)
    values = torch.cat([digits.train, digits.validation, digits.test])
    assert values.dtype == torch.float64
    assert set(values.unique().tolist()) == set(range(17))


def test_digits_parts_are_a_partition_of_the_source_and_keep_their_labels():
    from sklearn.datasets import load_digits

    digits = load_dataset("digits", seed=3)
    ours = sorted(
        (label, *row)
        for part in PARTS
        for row, label in zip(getattr(digits, part).tolist(), _labels(digits, part), strict=True)
    )
    source = load_digits()
    assert ours == sorted(
        (label, *row) for row, label in zip(source.data.tolist(), source.target.tolist(), strict=True)
    )


def test_the_seed_alone_decides_the_split():
    first = load_dataset("digits", seed=1)
    torch.manual_seed(99)
    again, other = load_dataset("digits", seed=1), load_dataset("digits", seed=2)
    assert all(torch.equal(getattr(first, part), getattr(again, part)) for part in PARTS)
    assert not torch.equal(first.train, other.train)


def test_the_default_type_is_used():
    torch.set_default_dtype(torch.float32)
    try:
        assert load_dataset("digits").train.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float64)


def test_draw_binarises_grey_rows_afresh_and_leaves_others_alone():
    rows = torch.tensor([[0.0, 1.0, 0.3]]).expand(10_000, 3)
    grey = Dataset("grey", rows, rows, rows, (3,), binarise=True)
    first, second = grey.draw(rows), grey.draw(rows)
    assert torch.equal(first[:, :2], rows[:, :2])
    assert set(first[:, 2].tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)
    # Five standard errors: a false alarm in 1.7 million.
    assert abs(first[:, 2].mean() - 0.3) < 5 * (0.3 * 0.7 / 10_000) ** 0.5
    plain = replace(grey, binarise=False)
    assert plain.draw(rows) is rows


# --- the real files, where they are


@pytest.mark.skipif(not (READY_MADE / "mnist.npz").is_file(), reason="mnist.npz is not here")
def test_mnist():
    mnist = load_dataset("mnist", data_dir=READY_MADE)
    assert [getattr(mnist, part).shape for part in PARTS] == [(50_000, 784), (10_000, 784), (10_000, 784)]
    assert (mnist.event_shape, mnist.binarise, mnist.total_count) == ((28, 28), True, None)
    assert mnist.train.min() == 0
    assert mnist.train.max() == 1
    # 33.3184 and 33.7912 are the published mean grey values of all 60 000 training and 10 000 test pictures. The drawn
    # parts differ from their means by less than 1e-3 (sd of one pixel < 0.5, 7.84 million pixels: 5 se = 9e-4).
    all_training = (5 * mnist.train.mean() + mnist.validation.mean()) / 6
    assert all_training.item() == pytest.approx(33.3184 / 255, abs=2e-4)
    assert mnist.test.mean().item() == pytest.approx(33.7912 / 255, abs=1e-3)
    assert mnist.validation.unique().tolist() == mnist.test.unique().tolist() == [0, 1]
    assert _labels(mnist, "test")[:10] == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert [len(_labels(mnist, part)) for part in PARTS] == [50_000, 10_000, 10_000]


@pytest.mark.skipif(not (READY_MADE / "binarized_mnist.npz").is_file(), reason="binarized_mnist.npz is not here")
def test_binarized_mnist(monkeypatch):
    monkeypatch.setenv("PPVAE_DATA", str(READY_MADE))
    fixed = load_dataset("binarized_mnist")
    assert [getattr(fixed, part).shape for part in PARTS] == [(50_000, 784), (10_000, 784), (10_000, 784)]
    assert (fixed.event_shape, fixed.labels, fixed.binarise) == ((28, 28), None, False)
    assert all(torch.isin(getattr(fixed, part), torch.tensor([0.0, 1.0])).all() for part in PARTS)
    assert fixed.train.mean().item() == pytest.approx(0.13056, abs=5e-6)
    assert torch.equal(fixed.draw(fixed.train), fixed.train)


# --- small stand-ins for their arrays


@pytest.fixture
def small_mnist(monkeypatch) -> dict[str, np.ndarray]:
    """Grey pictures and labels that no file holds."""
    random = np.random.default_rng(0)
    grey = {"x_train": random.integers(0, 256, (60, 28, 28)), "x_test": random.integers(0, 256, (10, 28, 28))}
    label = {"y_train": random.integers(0, 10, 60), "y_test": random.integers(0, 10, 10)}
    arrays = {key: array.astype(np.uint8) for key, array in (grey | label).items()}
    monkeypatch.setattr(known, "ready_made", lambda name, data_dir: arrays)
    return arrays


def test_the_binarisation_of_held_out_pictures_follows_the_grey(small_mnist):
    mnist = load_dataset("mnist")
    source = torch.tensor(small_mnist["x_test"].reshape(10, 784)) / 255
    assert torch.all(mnist.test[source == 0] == 0)
    assert torch.all(mnist.test[source == 1] == 1)
    # The mean of independent Bernoulli draws, to five standard errors: a false alarm in 1.7 million.
    se = (source * (1 - source)).sum().sqrt() / source.numel()
    assert abs(mnist.test.mean() - source.mean()) < 5 * se


def test_the_held_out_pictures_are_the_same_in_single_precision(small_mnist):
    double = load_dataset("mnist")
    torch.set_default_dtype(torch.float32)
    try:
        single = load_dataset("mnist")
    finally:
        torch.set_default_dtype(torch.float64)
    assert torch.equal(single.test.double(), double.test)


# --- names and paths that lead nowhere


def test_a_missing_file_and_a_folder(tmp_path):
    assert "there is no file" in _message(DatasetError, tmp_path / "mine.npy")
    (tmp_path / "folder.npy").mkdir()
    assert "there is no file" in _message(DatasetError, tmp_path / "folder.npy")


@pytest.mark.parametrize(("name", "guess"), [("digit", "'digits'"), ("binarised_mnist", "'binarized_mnist'")])
def test_an_unknown_name_is_met_with_the_known_ones(name, guess):
    message = _message(DatasetError, name)
    assert f"did you mean {guess}?" in message
    assert all(name in message for name in DATASETS)


def test_an_unknown_name_like_no_other():
    message = _message(DatasetError, "mine.xlsx")
    assert "did you mean" not in message
    assert ".parquet" in message


@pytest.mark.skipif(not (READY_MADE / "jsb_chorales.npz").is_file(), reason="jsb_chorales.npz is not here")
def test_jsb_chorales():
    """229, 76 and 77 chorales, 13807, 4602 and 4725 steps in all; nothing sounds after the end of one."""
    chorales = load_dataset("jsb_chorales", data_dir=READY_MADE)
    assert [getattr(chorales, part).shape for part in PARTS] == [(229, 14080), (76, 14080), (77, 14080)]
    assert chorales.event_shape == (160, 88)
    for part, steps in zip(PARTS, (13807, 4602, 4725), strict=True):
        x, lengths = chorales.batch(part)
        assert lengths.sum() == steps
        sounds = x.reshape(-1, 160, 88).sum(-1) > 0
        after = torch.arange(160) >= lengths[:, None]
        assert not (sounds & after).any()
        assert sounds[~after].double().mean() > 0.99
