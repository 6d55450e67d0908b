"""Files and objects with something odd about them: each is read to the last digit, or refused in one sentence."""

import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from ppvae.datasets import Dataset, Split, load_dataset
from ppvae.errors import PpvaeError

PARTS = ("train", "validation", "test")
X = np.round(np.random.default_rng(0).normal(size=(12, 3)), 3)
LINES = ["{},{},{}".format(*row) for row in X]
SPECIES = ["setosa", "virginica"] * 6
BYTES = np.random.default_rng(1).integers(0, 256, (12, 4, 4), dtype=np.uint8)
BYTES[0, 0, 0] = 255


def _rows(data: Dataset, numbers=None) -> np.ndarray:
    """All rows in the order of the source."""
    assert data.rows is not None
    order = torch.cat([data.rows[part] for part in PARTS]).argsort()
    return torch.cat([getattr(data, part) for part in PARTS])[order].numpy()


def _text(lines, header="a,b,c", end="\n") -> str:
    return end.join([*([header] if header else []), *lines]) + end


def _semicolon(line: str) -> str:
    return line.replace(",", ";").replace(".", ",")


# A file's name and content, the options, and the rows that come out or words of the sentence.
WITH_INDEX = [f"{i},{line}" for i, line in enumerate(LINES)]
LABELLED = [f"{line},{name}" for line, name in zip(LINES, SPECIES, strict=True)]
CODED = [f"{line},{i % 2}" for i, line in enumerate(LINES)]
MNIST = [",".join(map(str, [i % 3, *row.reshape(-1)])) for i, row in enumerate(BYTES.astype(int))]
FILES = {
    "comma": ("m.csv", _text(LINES), {}, X),
    "no header": ("m.csv", _text(LINES, header=""), {}, X),
    "semicolon": ("m.csv", _text([line.replace(",", ";") for line in LINES], "a;b;c"), {}, X),
    "semicolon, decimal comma": ("m.csv", _text(map(_semicolon, LINES), "a;b;c"), {}, X),
    "semicolon, decimal comma, no header": ("m.csv", _text(map(_semicolon, LINES), ""), {}, X),
    "tab": ("m.tsv", _text([line.replace(",", "\t") for line in LINES], "a\tb\tc"), {}, X),
    "tab in a .csv, decimal comma": ("m.csv", _text([line.replace(",", "\t").replace(".", ",") for line in LINES], "")
                                     , {}, X),
    "commas in a .tsv": ("m.tsv", _text(LINES), {}, X),
    "blanks": ("m.csv", _text([line.replace(",", "  ") for line in LINES], ""), {}, X),
    "bars": ("m.csv", _text([line.replace(",", "|") for line in LINES], "a|b|c"), {}, X),
    "blanks after commas": ("m.csv", _text([line.replace(",", ", ") for line in LINES], "a, b, c"), {}, X),
    "line ends of Windows": ("m.csv", _text(LINES, end="\r\n"), {}, X),
    "byte order mark": ("m.csv", "\ufeff" + _text(LINES), {}, X),
    "no line end at the end": ("m.csv", _text(LINES).rstrip(), {}, X),
    "blank lines": ("m.csv", "\n\n" + _text(LINES).replace("\n", "\n\n"), {}, X),
    "quoted numbers": ("m.csv", _text([",".join(f'"{c}"' for c in line.split(",")) for line in LINES]), {}, X),
    "quoted names with commas": ("m.csv", _text(LINES, '"a, in cm",b,c'), {}, X),
    "comments on top": ("m.csv", "# made by me\n" + _text(LINES), {}, X),
    "numpy's header": ("m.csv", "# a,b,c\n" + _text(LINES, ""), {}, X),
    "index of pandas": ("m.csv", _text(WITH_INDEX, ",a,b,c"), {}, X),
    "index of R": ("m.csv", _text([f"r{i},{line}" for i, line in enumerate(LINES)]), {}, X),
    "years as names": ("m.csv", _text(LINES, "2019,2020,2021"), {}, X),
    "names of pandas": ("m.csv", _text(LINES, "0,1,2"), {}, X),
    "whole numbers that count up": ("m.csv", "1,2,3\n4,5,6\n1,9,7\n", {}, [[1, 2, 3], [4, 5, 6], [1, 9, 7]]),
    "one column": ("m.csv", _text([line.split(",")[0] for line in LINES], "a"), {}, X[:, :1]),
    "exponents": ("m.csv", _text([",".join(f"{float(c):.6e}" for c in line.split(",")) for line in LINES], ""), {}, X),
    "truth values": ("m.csv", _text(["True,0.5", "False,1.5", "True,2.5"], "a,b"), {}, [[1, 0.5], [0, 1.5], [1, 2.5]]),
    "NA and empty cells": ("m.csv", _text(["NA,1.5", "2.5,", "null,3.5", "n/a,4.5"], "a,b"), {},
                           [[np.nan, 1.5], [2.5, np.nan], [np.nan, 3.5], [np.nan, 4.5]]),
    "label column": ("m.csv", _text(LABELLED, "a,b,c,kind"), {"label_column": "kind"}, X),
    "label column without header": ("m.csv", _text(LABELLED, ""), {"label_column": "3"}, X),
    "dropped column": ("m.csv", _text(LABELLED, "a,b,c,kind"), {"drop_columns": ["kind"]}, X),
    "codes kept as data": ("m.csv", _text(CODED, "a,b,c,flag"), {"label_column": "none"},
                           np.column_stack([X, np.arange(12) % 2])),
    "codes with a fraction": ("m.csv", _text([f"{line}.0" for line in CODED], "a,b,c,flag"), {},
                              np.column_stack([X, np.arange(12) % 2])),
    "whole numbers": ("m.csv", _text(["3,5", "1,4", "2,9", "3,3"], "a,b"), {}, [[3, 5], [1, 4], [2, 9], [3, 3]]),
    # --- refused
    "text": ("m.csv", _text(LABELLED, "a,b,c,kind"), {}, "'kind' does not hold numbers"),
    "text without header": ("m.csv", _text(LABELLED, ""), {}, "column 3 does not hold"),
    "codes": ("m.csv", _text(CODED, "a,b,c,flag"), {}, "column 'flag' holds 2 different whole numbers"),
    "class by its name": ("m.csv", _text(["1.5,7", "2.5,7", "0.5,7"], "a,class"), {}, "named like a label"),
    "identity by its name": ("m.csv", _text(["1.5,7", "2.5,3", "0.5,9"], "a,patient_id"), {}, "like an identity"),
    "numbers of the rows": ("m.csv", _text(WITH_INDEX, "n,a,b,c"), {}, "column 'n' counts the rows"),
    "saved index": ("m.csv", _text(WITH_INDEX, "Unnamed: 0,a,b,c"), {}, "'Unnamed: 0'"),
    "digits with their class first": ("m.csv", _text(MNIST, ""), {}, "column 0 holds 3 different whole numbers"),
    "a word for missing": ("m.csv", _text(["1.5,?", "2.5,3.5", "0.5,4.5"], "a,b"), {},
                           "1 cell, the first '?' in row 0"),
    "percent": ("m.csv", _text(["1%,2", "3%,4", "5%,6"], "a,b"), {}, "such as '1%'"),
    "thousands": ("m.csv", _text(['"1,234.5",2', '"3,456.5",4', '"5,678.5",6'], "a,b"), {}, "such as '1,234.5'"),
    "point and comma": ("m.csv", "1,5;2.5\n2,5;3.5\n3,5;4.5\n", {}, "decimal comma, such as '1,5'"),
    "dates": ("m.csv", _text(["2024-01-01,2", "2024-01-02,4", "2024-01-03,6"], "a,b"), {}, "such as '2024-01-01'"),
    "two columns of one name": ("m.csv", _text(LINES, "a,b,a"), {}, "two columns called 'a'"),
    "a name that is empty": ("m.csv", _text(LINES, "a,,c"), {}, "a name in the first line"),
    "a cell too many": ("m.csv", _text([*LINES[:4], LINES[4] + ",7"]), {}, "row 6 has 4 cells"),
    "a cell too few": ("m.csv", _text([*LINES[:4], "1,2"]), {}, "row 6 has 2 cells"),
    "commas at the end": ("m.csv", _text([line + "," for line in LINES]), {}, "different lengths"),
    "a decimal comma between commas": ("m.csv", _text(["1,5", "2,5", "3,5"], "a"), {}, "different lengths"),
    "infinity": ("m.csv", _text([*LINES, "1,inf,2"]), {}, "row 12, column 'b'"),
    "a number beyond single precision": ("m.csv", _text([*LINES, "1,2e300,2"]), {}, "overlarge"),
    "an identity of nine digits": ("m.csv", _text(["100000001,5", "100000002,7", "100000007,2"], "a,b"), {}, "rounds"),
    "an empty file": ("m.csv", "", {}, "is empty"),
    "a header alone": ("m.csv", "a,b,c\n", {}, "0 rows"),
    "two rows": ("m.csv", _text(LINES[:2]), {}, "at least 3"),
    "Latin-1": ("m.csv", _text(LINES, "größe,b,c").encode("latin-1"), {}, "save it as UTF-8"),
    "UTF-16": ("m.csv", _text(LINES).encode("utf-16"), {}, "save it as UTF-8"),
    "a zip called .csv": ("m.csv", b"PK\x03\x04\x00\x00\xff\xfe", {}, "m.csv"),
    "nothing but missing": ("m.csv", _text(["NA,NA"] * 4, "a,b"), {}, "nothing but missing"),
    "Excel": ("m.xlsx", b"PK", {}, "save the sheet as .csv"),
    "AnnData's file": ("m.h5ad", b"HDF", {}, "give the AnnData"),
    "packed": ("m.csv.gz", b"", {}, "unpack it"),
    "a column that is not there": ("m.csv", _text(LINES), {"label_column": "d"}, "which is no column of"),
    "nothing left": ("m.csv", _text(LINES), {"drop_columns": ["a", "b", "c"]}, "none is left as data"),
    "stratified by numbers": ("m.csv", _text(LINES), {"split": Split(stratify="a")}, "no classes"),
    "split by another column": ("m.csv", _text(LABELLED, "a,b,c,kind"), {"split": "kind"}, "holds 'setosa'"),
    "fractions": ("m.csv", _text(LINES), {"split": (0.5, 0.4, 0.3)}, "sum is 1"),
    "standardised counts": ("m.csv", _text(["3,5", "1,4", "2,9", "3,3"], "a,b"), {"standardise": True},
                            "whole numbers only"),
    "standardised constant": ("m.csv", _text([f"{line},0.5" for line in LINES], "a,b,c,d"), {"standardise": True},
                              "'d'"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_an_odd_file_is_read_to_the_last_digit_or_refused_in_a_sentence(name, tmp_path):
    file, content, options, expected = FILES[name]
    if name == "a number beyond single precision":
        torch.set_default_dtype(torch.float32)
    if name == "an identity of nine digits":
        torch.set_default_dtype(torch.float32)
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    _expect(tmp_path / file, options, expected)


def _expect(source, options, expected) -> None:
    try:
        if isinstance(expected, str):
            with pytest.raises(PpvaeError) as caught:
                load_dataset(source, **options)
            message = str(caught.value)
            assert expected in message
            assert "\n" not in message
            assert message.endswith(".")
            if isinstance(source, Path) and "sum is 1" not in expected:
                assert source.name in message
        else:
            data = load_dataset(source, **options)
            rows = _rows(data)
            np.testing.assert_array_equal(rows, np.asarray(expected, rows.dtype).reshape(len(expected), -1))
    finally:
        torch.set_default_dtype(torch.float64)


# --- objects ----------------------------------------------------------------------------------------------------------


class Pictures(TorchDataset):
    """A look-alike of torchvision's ImageFolder: (image, label)."""

    classes = ("cat", "dog")

    def __len__(self):
        return len(BYTES)

    def __getitem__(self, i):
        return torch.from_numpy(BYTES[i]).float() / 255, i % 2


class Duck:
    """Items by number, and no torch Dataset."""

    def __len__(self):
        return 12

    def __getitem__(self, i):
        return X[i]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.from_numpy(X))


class Ragged(TorchDataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return torch.zeros(2 + i % 2)


class OfDicts(TorchDataset):
    def __len__(self):
        return 12

    def __getitem__(self, i):
        return {"label": i % 2, "image": X[i], "note": "abc"[i % 3], "size": X[i, :1]}


@dataclass
class Annotated:
    """A look-alike of AnnData."""

    X: object
    obs: pd.DataFrame
    var_names: list[str]

    def __len__(self):
        return self.X.shape[0]

    def __getitem__(self, i):
        raise NotImplementedError


T = torch.from_numpy(X)
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])
CELLS = Annotated(sparse.csr_matrix(X), pd.DataFrame({"type": SPECIES}), ["g1", "g2", "g3"])
MASKED = np.ma.masked_array(X, mask=np.eye(12, 3, dtype=bool))
HOLES = np.where(np.eye(12, 3, dtype=bool), np.nan, X)
GREY = (BYTES.astype(np.float32) / np.float32(255)).reshape(12, 16)
OBJECTS = {
    "float16 tensor": (T.half(), {}, X.astype(np.float16)),
    "bfloat16 tensor": (T.bfloat16(), {}, T.bfloat16().float().numpy()),
    "int8 tensor": (T.mul(10).to(torch.int8), {}, (X * 10).astype(np.int8)),
    "bool tensor": (T > 0, {}, X > 0),
    "tensor with a gradient": (T.clone().requires_grad_(), {}, X),
    "sparse tensor": (T.to_sparse(), {}, X),
    "transposed tensor": (T.T.contiguous().T, {}, X),
    "bytes of pictures": (BYTES, {}, BYTES.reshape(12, 16)),
    "array of float64": (X, {}, X),
    "array of big-endian numbers": (X.astype(">f4"), {}, X.astype(np.float32)),
    "array of objects": (X.astype(object), {}, X),
    "masked array": (MASKED, {}, HOLES),
    "structured array": (FRAME.to_records(index=False), {}, X),
    "list of rows": (X.tolist(), {}, X),
    "list with None": ([[1.5, None], [2.5, 1.5], [3.5, 2.5]], {}, [[1.5, np.nan], [2.5, 1.5], [3.5, 2.5]]),
    "list of dicts": (FRAME.to_dict("records"), {}, X),
    "list of tensors": (list(T), {}, X),
    "sparse matrix": (sparse.csr_matrix(X), {}, X),
    "pandas": (FRAME, {}, X),
    "pandas with another index": (FRAME.set_index(pd.Index(SPECIES)), {}, X),
    "pandas of nullable numbers": (FRAME.astype("Float64"), {}, X),
    "pandas of objects": (FRAME.astype(object), {}, X),
    "pandas with categories": (FRAME.assign(k=pd.Categorical(SPECIES)), {"label_column": "k"}, X),
    "pandas, columns of two levels": (FRAME.set_axis(pd.MultiIndex.from_product([["u"], list("abc")]), axis=1), {}, X),
    "a series": (FRAME["a"], {}, X[:, :1]),
    "polars": (pl.DataFrame(X, schema=["a", "b", "c"]), {}, X),
    "lazy polars with text": (pl.DataFrame(X, schema=["a", "b", "c"]).lazy().with_columns(k=pl.lit("u")),
                              {"drop_columns": ["k"]}, X),
    "polars with nulls": (pl.DataFrame({"a": [1, None, 3], "b": [0.5, 1.5, None]}), {},
                          [[1, 0.5], [np.nan, 1.5], [3, np.nan]]),
    "columns by name": ({"a": X[:, 0], "b": X[:, 1].tolist()}, {}, X[:, :2]),
    "x and context": ((T, torch.arange(12)), {}, X),
    "parts": ({"train": X[:8], "validation": X[8:10], "test": X[10:]}, {}, X),
    "train and test": ({"train": X[:8], "test": FRAME[8:].to_numpy()}, {}, X),
    "torch Dataset": (TensorDataset(T), {}, X),
    "items by number": (Duck(), {}, X),
    "stream": (Stream(), {}, X),
    "pictures with labels": (Pictures(), {}, GREY),
    "loader that shuffles and drops": (DataLoader(TensorDataset(T), 5, shuffle=True, drop_last=True), {}, X),
    "loader of pairs": (DataLoader(TensorDataset(T, torch.arange(12.0)), 5), {}, X),
    "loader of dicts": (DataLoader(OfDicts(), 5), {}, X),
    "loader of a stream": (DataLoader(Stream(), 5), {}, X),
    "loader without batches": (DataLoader(TensorDataset(T), batch_size=None), {}, X),
    "loader with a sampler": (DataLoader(TensorDataset(T), 2, sampler=SequentialSampler(range(6))), {}, X[:6]),
    "AnnData": (CELLS, {"label_column": "type"}, X),
    # --- refused
    "nothing": (None, {}, "is None"),
    "a number": (3, {}, "is int"),
    "a generator": ((row for row in X), {}, "is generator"),
    "ragged list": ([[1.0, 2.0], [3.0]], {}, "different lengths"),
    "empty list": ([], {}, "is empty"),
    "tensors of two shapes": ([torch.zeros(2), torch.zeros(3), torch.zeros(2)], {}, "(2,) and (3,)"),
    "complex tensor": (torch.zeros(4, 2, dtype=torch.complex64), {}, "complex"),
    "meta tensor": (torch.zeros(4, 2, device="meta"), {}, "meta"),
    "dates in an array": (np.zeros((4, 2), "datetime64[s]"), {}, "datetime64"),
    "pandas with text": (FRAME.assign(k=SPECIES), {}, "column 'k' does not hold numbers"),
    "pandas with dates": (FRAME.assign(k=pd.date_range("2024", periods=12)), {}, "numbers, but datetime64"),
    "two columns of one name, pandas": (FRAME.set_axis(["a", "b", "a"], axis=1), {}, "called 'a'"),
    "polars with lists": (pl.DataFrame({"a": [[1], [2], [3]]}), {}, "unnest"),
    "text rows": ([["a", "1"], ["b", "2"], ["c", "3"]], {}, "column 0 does not hold"),
    "ragged Dataset": (Ragged(), {}, "different shapes"),
    "empty Dataset": (TensorDataset(torch.zeros(0, 2)), {}, "yields nothing"),
    "label of another length": ((X, np.arange(5)), {"label_column": "context_1"}, "5 values for 12 data"),
    "a module": (types, {}, "is module"),
    "a ppvae Dataset": (load_dataset(X), {}, "a Dataset of ppvae already"),
    "parts with different columns": ({"train": FRAME, "test": FRAME.rename(columns={"b": "d"})}, {}, "no column 'b'"),
    "a column of an array": (X, {"label_column": "a"}, "none, as an array has"),
    "standardised bytes": (BYTES, {"standardise": True}, "no units"),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTS)
def test_an_odd_object_is_read_to_the_last_digit_or_refused_in_a_sentence(name):
    _expect(*OBJECTS[name])


def test_the_tables_above_are_as_long_as_they_are_said_to_be():
    assert len(FILES) + len(OBJECTS) >= 130
    assert len(FILES) >= 60
