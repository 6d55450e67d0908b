"""The ready-made files: fetched once from a server of this machine, found in a folder, and verified."""

import hashlib
import io
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch

from ppvae.datasets import downloads, load_dataset
from ppvae.errors import DatasetError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """No test sees or changes the user's own folders."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(pooch, "os_cache", lambda project: folder / project)
    monkeypatch.delenv("PPVAE_DATA", raising=False)
    return folder / "ppvae"


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
        source = downloads._SOURCES[name]
        small = replace(
            source,
            base_url=server.url,
            files={file: _sha256(server.files[file]) for file in source.files},
            arrays={key: (array.shape, _sha256(array.tobytes())) for key, array in arrays.items()},
        )
        monkeypatch.setitem(downloads._SOURCES, name, small)
    yield server
    server.stop()


def test_mnist_is_fetched_once(server, cache):
    mnist = load_dataset("mnist")
    source = _small_mnist()
    assert torch.equal(mnist.train, torch.tensor(source["x_train"][:50].reshape(50, 784)) / 255)
    assert mnist.labels["validation"].tolist() == source["y_train"][50:].tolist()
    assert server.asked == ["mnist.npz"]
    assert [file.name for file in cache.iterdir()] == ["mnist.npz"]
    torch.manual_seed(5)
    again = load_dataset("mnist", seed=8)
    assert server.asked == ["mnist.npz"]
    assert torch.equal(again.validation, mnist.validation)
    assert torch.equal(again.test, mnist.test)


def test_binarized_mnist_is_fetched_and_parsed_once(server, cache, monkeypatch):
    fixed = load_dataset("binarized_mnist")
    for part, key in zip(("train", "validation", "test"), ("train", "valid", "test"), strict=True):
        assert torch.equal(getattr(fixed, part), torch.tensor(_small_binary()[key]).double())
    assert len(server.asked) == 3
    assert [file.name for file in cache.iterdir()] == ["binarized_mnist.npz"]
    unparsed = replace(downloads._SOURCES["binarized_mnist"], parse=lambda folder: pytest.fail("parsed again"))
    monkeypatch.setitem(downloads._SOURCES, "binarized_mnist", unparsed)
    assert torch.equal(load_dataset("binarized_mnist").train, fixed.train)
    assert len(server.asked) == 3


def test_a_folder_needs_no_server(server, tmp_path, monkeypatch):
    # Another file than the source's, the same arrays.
    (tmp_path / "mnist.npz").write_bytes(_packed(_small_mnist(), np.savez_compressed))
    for file in downloads._SOURCES["binarized_mnist"].files:
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
    assert "--data_dir" in message
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
    way_out = "set PPVAE_DATA or --data_dir to a folder that has it, or connect to the network and try again."
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
    for file in downloads._SOURCES["binarized_mnist"].files:
        (tmp_path / file).write_bytes(server.files[file][:-3])
    assert "damaged" in _message(DatasetError, "binarized_mnist", data_dir=tmp_path)
