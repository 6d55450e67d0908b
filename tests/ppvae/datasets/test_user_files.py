"""A user's own files: what is read from them, and what is refused in which words."""

import numpy as np
import pandas as pd
import pytest
import torch

from ppvae.datasets import load_dataset
from ppvae.errors import DataError, DatasetError

PARTS = ("train", "validation", "test")


def _message(error: type[Exception], *args, **options) -> str:
    with pytest.raises(error) as caught:
        load_dataset(*args, **options)
    return str(caught.value)


def test_an_array_is_split_in_ten_by_the_seed(tmp_path):
    array = np.arange(50 * 6, dtype=np.int32).reshape(50, 2, 3)
    np.save(tmp_path / "mine.npy", array)
    mine = load_dataset(tmp_path / "mine.npy", seed=4)
    assert (mine.name, mine.event_shape, mine.labels) == ("mine.npy", (2, 3), None)
    assert [getattr(mine, part).shape for part in PARTS] == [(40, 6), (5, 6), (5, 6)]
    rows = torch.cat([mine.train, mine.validation, mine.test])
    assert torch.equal(rows[rows[:, 0].argsort()], torch.arange(300.0).reshape(50, 6))
    assert torch.equal(load_dataset(str(tmp_path / "mine.npy"), seed=4).test, mine.test)
    assert not torch.equal(load_dataset(tmp_path / "mine.npy", seed=5).test, mine.test)


def test_three_rows_are_enough_and_two_are_not(tmp_path):
    np.save(tmp_path / "three.npy", np.eye(3))
    three = load_dataset(tmp_path / "three.npy")
    assert [len(getattr(three, part)) for part in PARTS] == [1, 1, 1]
    np.save(tmp_path / "two.npy", np.eye(2))
    assert "2 rows" in _message(DatasetError, tmp_path / "two.npy")


def test_one_dimension_is_one_number_each(tmp_path):
    np.save(tmp_path / "mine.npy", np.arange(10.0))
    mine = load_dataset(tmp_path / "mine.npy")
    assert mine.event_shape == (1,)
    assert mine.train.shape == (8, 1)


@pytest.mark.parametrize("dtype", ["?", "u1", ">i4", "<f2", ">f8", "g"])
def test_every_real_type_and_memory_order_is_read(tmp_path, dtype):
    array = np.asfortranarray(np.random.default_rng(0).integers(0, 2, (10, 3)).astype(dtype))
    np.save(tmp_path / "mine.npy", array)
    mine = load_dataset(tmp_path / "mine.npy")
    rows = torch.cat([mine.train, mine.validation, mine.test])
    assert sorted(rows.tolist()) == sorted(array.astype(float).tolist())


@pytest.mark.parametrize("name", ["validation", "valid"])
def test_an_archive_may_bring_its_own_split(tmp_path, name):
    parts = {"train": np.full((4, 2), 1), name: np.full((2, 2), 2), "test": np.full((3, 2), 3), "extra": np.zeros(1)}
    np.savez(tmp_path / "mine.npz", **parts)
    mine = load_dataset(tmp_path / "mine.npz")
    assert [getattr(mine, part).shape for part in PARTS] == [(4, 2), (2, 2), (3, 2)]
    assert [getattr(mine, part).unique().tolist() for part in PARTS] == [[1], [2], [3]]


def test_an_archive_of_one_array_is_split(tmp_path):
    np.savez(tmp_path / "mine.npz", anything=np.zeros((20, 4)))
    assert load_dataset(tmp_path / "mine.npz").train.shape == (16, 4)


def test_an_archive_of_two_arrays_is_refused_with_their_names(tmp_path):
    np.savez(tmp_path / "mine.npz", train=np.zeros((20, 4)), labels=np.zeros(20))
    assert "labels, train" in _message(DatasetError, tmp_path / "mine.npz")


def test_parts_of_different_shapes_are_refused(tmp_path):
    np.savez(tmp_path / "mine.npz", train=np.zeros((4, 2)), validation=np.zeros((4, 2)), test=np.zeros((4, 3)))
    assert "different shapes" in _message(DataError, tmp_path / "mine.npz")


@pytest.mark.parametrize(
    "first_line", ["height,weight\n", "", "0.5,height\n"], ids=["header", "no header", "half a header"]
)
def test_a_table_with_and_without_header(tmp_path, first_line):
    (tmp_path / "mine.csv").write_text(first_line + "".join(f"{i},{i / 2}\n" for i in reversed(range(20))))
    mine = load_dataset(tmp_path / "mine.csv")
    rows = torch.cat([mine.train, mine.validation, mine.test])
    assert mine.event_shape == (2,)
    assert torch.equal(rows[rows[:, 0].argsort()], torch.stack([torch.arange(20.0), torch.arange(20.0) / 2], dim=1))


def test_the_header_that_pandas_gives_columns_without_names_is_no_datum(tmp_path):
    pd.DataFrame(np.ones((10, 3))).to_csv(tmp_path / "mine.csv", index=False)
    assert torch.equal(load_dataset(tmp_path / "mine.csv").train, torch.ones(8, 3))


def test_the_index_that_pandas_adds_is_no_datum(tmp_path):
    pd.DataFrame(np.full((10, 3), 0.5), columns=list("abc")).to_csv(tmp_path / "mine.csv")
    mine = load_dataset(tmp_path / "mine.csv")
    assert torch.equal(mine.train, torch.full((8, 3), 0.5))
    assert mine.columns == ("a", "b", "c")


@pytest.mark.parametrize(
    ("text", "error", "found"),
    [
        ("", DataError, "is empty"),
        ("a,b\n", DataError, "0 rows"),
        ("a,b\n1,2\n3,blue\n5,6\n", DataError, "'b'"),
        ("a,b\n1,2\n3,inf\n5,6\n", DataError, "row 1, column 'b'"),
        ("1,2\n3,4\n5,inf\n", DataError, "row 2, column 1"),
        ("a,b\n1,2\n3,4,5\n6,7\n", DatasetError, "cannot be read"),
        ("a,b\n1,2\n3\n5,6\n", DatasetError, "row 3 has 1 cells"),
        ("a,b\n1,2,9\n3,4,5\n6,7,8\n", DatasetError, "different lengths"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, error, found):
    (tmp_path / "mine.csv").write_text(text)
    message = _message(error, tmp_path / "mine.csv")
    assert found in message
    assert "mine.csv" in message


def test_a_table_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "mine.csv").write_bytes("größe\n1\n2\n3\n".encode("utf-16"))
    assert "cannot be read" in _message(DatasetError, tmp_path / "mine.csv")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    def no_engine(path):
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd, "read_parquet", no_engine)
    (tmp_path / "mine.parquet").touch()
    assert "pip install pyarrow" in _message(DatasetError, tmp_path / "mine.parquet")


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": np.arange(10)[::-1], "b": pd.array([1.5] * 10, dtype="Float64")})
    frame.to_parquet(tmp_path / "mine.parquet")
    assert load_dataset(tmp_path / "mine.parquet").train.shape == (8, 2)
    (tmp_path / "mine.parquet").write_bytes(b"PAR1")
    assert "cannot be read" in _message(DatasetError, tmp_path / "mine.parquet")


def test_infinite_values_are_counted_and_placed(tmp_path):
    array = np.zeros((5, 2, 3))
    array[2, 1, 0], array[4, 0, 0], array[0, 0, 0] = -np.inf, np.inf, np.nan
    np.save(tmp_path / "mine.npy", array)
    message = _message(DataError, tmp_path / "mine.npy")
    assert "2 infinite" in message
    assert "row 2, column 3" in message


def test_missing_values_are_read_counted_and_placed(tmp_path):
    array = np.arange(60.0).reshape(10, 2, 3)
    array[2, 1, 0] = array[4, 0, 0] = np.nan
    np.save(tmp_path / "mine.npy", array)
    data = load_dataset(tmp_path / "mine.npy")
    path = tmp_path / "mine.npy"
    assert data.missing == f"{path} has 2 missing values, the first in row 2, column 3 (counted from 0)"
    rows = torch.cat([data.train, data.validation, data.test])[torch.cat(list(data.rows.values())).argsort()]
    np.testing.assert_array_equal(rows, array.reshape(10, 6))
    np.savez(tmp_path / "parts.npz", train=array, validation=array[5:], test=array[3:])
    parts = load_dataset(tmp_path / "parts.npz").missing.split("; ")
    assert [part.partition(" of ")[0] for part in parts] == ["array 'train'", "array 'test'"]
    assert "1 missing value, the first in row 1, column 0" in parts[1]
    np.save(tmp_path / "nothing.npy", np.full((5, 2), np.nan))
    assert "nothing but missing values" in _message(DataError, tmp_path / "nothing.npy")


@pytest.mark.parametrize("first", ["a,b,c", "1,NA,3"])
def test_a_table_with_empty_cells_and_words_for_nothing(tmp_path, first):
    lines = [first, "1,,3", "NA,5,6", "7,8,NaN", "1,2,3"]
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    data = load_dataset(tmp_path / "mine.csv")
    rows = torch.cat([data.train, data.validation, data.test])
    has_names = first == "a,b,c"
    assert (len(rows), int(rows.isnan().sum())) == ((4, 3) if has_names else (5, 4))
    column = "'b'" if has_names else "1"
    assert data.missing.endswith(f"the first in row 0, column {column} (counted from 0)")


def test_parquet_with_missing_values(tmp_path):
    pytest.importorskip("pyarrow")
    pd.DataFrame({"a": [1.0, None, 3.0], "b": pd.array([1, 2, None], dtype="Int64")}).to_parquet(tmp_path / "m.parquet")
    assert "2 missing values, the first in row 1, column 'a'" in load_dataset(tmp_path / "m.parquet").missing


def test_a_value_too_large_for_single_precision_is_refused(tmp_path):
    array = np.zeros((5, 2))
    array[3, 1] = 1e300
    np.save(tmp_path / "mine.npy", array)
    torch.set_default_dtype(torch.float32)
    try:
        assert "row 3, column 1" in _message(DataError, tmp_path / "mine.npy")
    finally:
        torch.set_default_dtype(torch.float64)


@pytest.mark.parametrize(
    "array",
    [np.zeros((0, 3)), np.zeros((3, 0)), np.float64(1.0), np.array([["a"]]), np.zeros((4, 2), complex)],
    ids=["no rows", "no columns", "no dimension", "text", "complex"],
)
def test_arrays_that_hold_no_data(tmp_path, array):
    np.save(tmp_path / "mine.npy", array)
    assert "mine.npy" in _message(DataError, tmp_path / "mine.npy")


class _Trap:
    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)


def test_pickled_objects_are_never_run(tmp_path):
    np.save(tmp_path / "mine.npy", np.array([_Trap()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "mine.npz", np.array([_Trap()], dtype=object))
    for name in ("mine.npy", "mine.npz"):
        assert name in _message(DatasetError, tmp_path / name)


@pytest.mark.parametrize("name", ["mine.npy", "mine.npz"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"neither"])
def test_files_that_are_not_what_they_are_called(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert name in _message(DatasetError, tmp_path / name)


def test_an_archive_called_npy(tmp_path):
    np.savez(tmp_path / "mine.npz", a=np.zeros((5, 2)))
    (tmp_path / "mine.npz").rename(tmp_path / "mine.npy")
    assert "archive" in _message(DatasetError, tmp_path / "mine.npy")


def test_an_array_called_npz(tmp_path):
    np.save(tmp_path / "mine.npy", np.zeros((5, 2)))
    (tmp_path / "mine.npy").rename(tmp_path / "mine.npz")
    assert "mine.npz" in _message(DatasetError, tmp_path / "mine.npz")
