"""The three data sets by name, their download, and a user's own files."""

import hashlib
import io
import os
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import pytest
import torch

from ppvae import datasets
from ppvae.datasets import DATASETS, Dataset, load_dataset
from ppvae.errors import DataError, DatasetError

PROJECT = Path(__file__).resolve().parents[2]
READY_MADE = Path(os.environ.get("PPVAE_DATA") or PROJECT.parent / "shared" / "data")
PARTS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """No test sees or changes the user's own folders."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(pooch, "os_cache", lambda project: folder / project)
    monkeypatch.delenv("PPVAE_DATA", raising=False)
    return folder / "ppvae"


def _labels(data: Dataset, part: str) -> list[int]:
    assert data.labels is not None
    return data.labels[part].tolist()


# --- digits


def test_digits_are_counts_in_pictures_of_8_by_8():
    digits = load_dataset("digits")
    assert [getattr(digits, part).shape for part in PARTS] == [(1297, 64), (250, 64), (250, 64)]
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


# --- small stand-ins, served from this machine


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _small_mnist() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    grey = {"x_train": random.integers(0, 256, (60, 28, 28)), "x_test": random.integers(0, 256, (10, 28, 28))}
    label = {"y_train": random.integers(0, 10, 60), "y_test": random.integers(0, 10, 10)}
    return {key: array.astype(np.uint8) for key, array in (grey | label).items()}


def _small_binary() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {
        part: random.integers(0, 2, (n, 784)).astype(np.uint8) for part, n in (("train", 5), ("valid", 2), ("test", 3))
    }


def _packed(arrays: dict[str, np.ndarray], save=np.savez) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def _as_text(array: np.ndarray) -> bytes:
    return "".join(" ".join(map(str, row)) + "\n" for row in array.tolist()).encode()


class Server:
    """Serves the bytes in ``files``, counts what was asked for, and can hang up in the middle."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.hang_up = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path[1:])
                content = outer.files.get(self.path[1:])
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if outer.hang_up else content)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch):
    """Both data sets, small, at an address of this machine."""
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(variable, "127.0.0.1")
    server = Server()
    mnist, binary = _small_mnist(), _small_binary()
    server.files["mnist.npz"] = _packed(mnist)
    server.files |= {f"binarized_mnist_{part}.amat": _as_text(array) for part, array in binary.items()}
    for name, arrays in (("mnist", mnist), ("binarized_mnist", binary)):
        source = datasets._SOURCES[name]
        small = replace(
            source,
            base_url=server.url,
            files={file: _sha256(server.files[file]) for file in source.files},
            arrays={key: (array.shape, _sha256(array.tobytes())) for key, array in arrays.items()},
        )
        monkeypatch.setitem(datasets._SOURCES, name, small)
    yield server
    server.stop()


def test_mnist_is_fetched_once(server, cache):
    mnist = load_dataset("mnist")
    source = _small_mnist()
    assert torch.equal(mnist.train, torch.tensor(source["x_train"][:50].reshape(50, 784)) / 255)
    assert _labels(mnist, "validation") == source["y_train"][50:].tolist()
    assert server.asked == ["mnist.npz"]
    assert [file.name for file in cache.iterdir()] == ["mnist.npz"]
    torch.manual_seed(5)
    again = load_dataset("mnist", seed=8)
    assert server.asked == ["mnist.npz"]
    assert torch.equal(again.validation, mnist.validation)
    assert torch.equal(again.test, mnist.test)


def test_the_binarisation_of_held_out_pictures_follows_the_grey(server):
    mnist = load_dataset("mnist")
    source = torch.tensor(_small_mnist()["x_test"].reshape(10, 784)) / 255
    assert torch.all(mnist.test[source == 0] == 0)
    assert torch.all(mnist.test[source == 1] == 1)
    # The mean of independent Bernoulli draws, to five standard errors: a false alarm in 1.7 million.
    se = (source * (1 - source)).sum().sqrt() / source.numel()
    assert abs(mnist.test.mean() - source.mean()) < 5 * se


def test_the_held_out_pictures_are_the_same_in_single_precision(server):
    double = load_dataset("mnist")
    torch.set_default_dtype(torch.float32)
    try:
        single = load_dataset("mnist")
    finally:
        torch.set_default_dtype(torch.float64)
    assert torch.equal(single.test.double(), double.test)


def test_binarized_mnist_is_fetched_and_parsed_once(server, cache, monkeypatch):
    fixed = load_dataset("binarized_mnist")
    for part, key in zip(PARTS, ("train", "valid", "test"), strict=True):
        assert torch.equal(getattr(fixed, part), torch.tensor(_small_binary()[key]).double())
    assert len(server.asked) == 3
    assert [file.name for file in cache.iterdir()] == ["binarized_mnist.npz"]
    unparsed = replace(datasets._SOURCES["binarized_mnist"], parse=lambda folder: pytest.fail("parsed again"))
    monkeypatch.setitem(datasets._SOURCES, "binarized_mnist", unparsed)
    assert torch.equal(load_dataset("binarized_mnist").train, fixed.train)
    assert len(server.asked) == 3


def test_a_folder_needs_no_server(server, tmp_path, monkeypatch):
    # Another file than the source's, the same arrays.
    (tmp_path / "mnist.npz").write_bytes(_packed(_small_mnist(), np.savez_compressed))
    for file in datasets._SOURCES["binarized_mnist"].files:
        (tmp_path / file).write_bytes(server.files[file])
    assert load_dataset("mnist", data_dir=tmp_path).train.shape == (50, 784)
    monkeypatch.setenv("PPVAE_DATA", str(tmp_path))
    assert load_dataset("binarized_mnist").train.shape == (5, 784)
    assert server.asked == []


def test_the_argument_wins_over_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PPVAE_DATA", str(tmp_path / "nowhere"))
    (tmp_path / "mnist.npz").write_bytes(_packed(_small_mnist()))
    assert load_dataset("mnist", data_dir=tmp_path).train.shape == (50, 784)


def _message(error: type[Exception], *args, **options) -> str:
    with pytest.raises(error) as caught:
        load_dataset(*args, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "binarized_mnist"])
def test_a_folder_without_the_file(name, server, tmp_path):
    message = _message(DatasetError, name, data_dir=tmp_path)
    assert str(tmp_path / f"{name}.npz") in message
    assert "--data-dir" in message
    assert server.asked == []


def _nothing_was_kept(cache: Path) -> bool:
    return list(cache.iterdir()) == []


def test_a_wrong_hash(server, cache):
    server.files["binarized_mnist_valid.amat"] = server.files["binarized_mnist_valid.amat"].replace(b"1 0", b"0 1", 1)
    message = _message(DatasetError, "binarized_mnist")
    assert server.url in message
    assert "wrong SHA-256" in message
    assert "PPVAE_DATA" in message
    assert _nothing_was_kept(cache)


def test_a_connection_that_breaks_in_the_middle(server, cache):
    server.hang_up = True
    assert "it broke" in _message(DatasetError, "mnist")
    assert _nothing_was_kept(cache)
    server.hang_up = False
    assert load_dataset("mnist").train.shape == (50, 784)


def test_a_file_that_is_no_longer_there(server, cache):
    server.files.clear()
    assert "answers 404" in _message(DatasetError, "mnist")
    assert _nothing_was_kept(cache)


def test_no_server_is_one_sentence_with_the_way_out(server, cache):
    server.stop()
    message = _message(DatasetError, "mnist")
    way_out = "set PPVAE_DATA or --data-dir to a folder that has it, or connect to the network and try again."
    assert message == f"mnist could not be fetched from {server.url} (no connection, or it broke): {way_out}"
    assert _nothing_was_kept(cache)


def test_a_cache_that_cannot_be_written(server, cache):
    cache.write_text("a file where the folder should be")
    assert "PPVAE_DATA" in _message(DatasetError, "mnist")


def test_a_damaged_file_in_the_cache_is_named(server, cache):
    load_dataset("mnist")
    file = cache / "mnist.npz"
    file.write_bytes(file.read_bytes()[:-200])
    assert str(file) in _message(DatasetError, "mnist")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"x_test": None}, "'x_test' is missing"),
        ({"x_test": np.zeros((10, 28, 28), np.uint8)}, "wrong SHA-256"),
        ({"x_train": _small_mnist()["x_train"].reshape(60, 784)}, "wrong SHA-256"),
        ({"y_test": _small_mnist()["y_test"].astype(np.int64)}, "wrong SHA-256"),
    ],
)
def test_arrays_that_are_not_the_data_set_are_refused(change, found, server, tmp_path):
    arrays = {key: array for key, array in (_small_mnist() | change).items() if array is not None}
    (tmp_path / "mnist.npz").write_bytes(_packed(arrays))
    message = _message(DatasetError, "mnist", data_dir=tmp_path)
    assert found in message
    assert str(tmp_path / "mnist.npz") in message


def test_text_of_the_wrong_length_in_a_folder(server, tmp_path):
    for file in datasets._SOURCES["binarized_mnist"].files:
        (tmp_path / file).write_bytes(server.files[file][:-3])
    assert "damaged" in _message(DatasetError, "binarized_mnist", data_dir=tmp_path)


# --- the user's own files


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
    (tmp_path / "mine.npz").write_bytes(_packed(parts))
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
    (tmp_path / "mine.csv").write_text(first_line + "".join(f"{i},{i / 2}\n" for i in range(20)))
    mine = load_dataset(tmp_path / "mine.csv")
    rows = torch.cat([mine.train, mine.validation, mine.test])
    assert mine.event_shape == (2,)
    assert torch.equal(rows[rows[:, 0].argsort()], torch.stack([torch.arange(20.0), torch.arange(20.0) / 2], dim=1))


def test_the_header_that_pandas_gives_columns_without_names_is_no_datum(tmp_path):
    pd.DataFrame(np.ones((10, 3))).to_csv(tmp_path / "mine.csv", index=False)
    assert torch.equal(load_dataset(tmp_path / "mine.csv").train, torch.ones(8, 3))


def test_the_index_that_pandas_adds_is_refused(tmp_path):
    pd.DataFrame(np.ones((10, 3))).to_csv(tmp_path / "mine.csv")
    assert "index=False" in _message(DataError, tmp_path / "mine.csv")


@pytest.mark.parametrize(
    ("text", "error", "found"),
    [
        ("", DataError, "is empty"),
        ("a,b\n", DataError, "0 rows"),
        ("a,b\n1,2\n3,blue\n5,6\n", DataError, "'b'"),
        ("a,b\n1,2\n3,\n5,6\n", DataError, "row 1, column 'b'"),
        ("1,2\n3,4\n5,inf\n", DataError, "row 2, column 1"),
        ("a,b\n1,2\n3,4,5\n6,7\n", DatasetError, "cannot be read"),
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
    frame = pd.DataFrame({"a": np.arange(10), "b": pd.array([1.5] * 10, dtype="Float64")})
    frame.to_parquet(tmp_path / "mine.parquet")
    assert load_dataset(tmp_path / "mine.parquet").train.shape == (8, 2)
    (tmp_path / "mine.parquet").write_bytes(b"PAR1")
    assert "cannot be read" in _message(DatasetError, tmp_path / "mine.parquet")


def test_values_that_are_not_finite_are_counted_and_placed(tmp_path):
    array = np.zeros((5, 2, 3))
    array[2, 1, 0], array[4, 0, 0] = np.nan, np.inf
    np.save(tmp_path / "mine.npy", array)
    message = _message(DataError, tmp_path / "mine.npy")
    assert "2 missing" in message
    assert "row 2, column 3" in message


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
    (tmp_path / "mine.npy").write_bytes(_packed({"a": np.zeros((5, 2))}))
    assert "archive" in _message(DatasetError, tmp_path / "mine.npy")


def test_an_array_called_npz(tmp_path):
    np.save(tmp_path / "mine.npy", np.zeros((5, 2)))
    (tmp_path / "mine.npy").rename(tmp_path / "mine.npz")
    assert "mine.npz" in _message(DatasetError, tmp_path / "mine.npz")


def test_a_missing_file_and_a_folder(tmp_path):
    assert "there is no file" in _message(DatasetError, tmp_path / "mine.npy")
    (tmp_path / "folder.npy").mkdir()
    assert "there is no file" in _message(DatasetError, tmp_path / "folder.npy")


@pytest.mark.parametrize(("name", "guess"), [("digit", "'digits'"), ("binarised_mnist", "'binarized_mnist'")])
def test_an_unknown_name_is_met_with_the_known_ones(name, guess):
    message = _message(DatasetError, name)
    assert f"did you mean {guess}?" in message
    assert all(known in message for known in DATASETS)


def test_an_unknown_name_like_no_other():
    message = _message(DatasetError, "mine.xlsx")
    assert "did you mean" not in message
    assert ".parquet" in message
