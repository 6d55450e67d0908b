"""A file appears whole or not at all, and every way of failing to write one is a single sentence."""

import json
import math
import os
import resource
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from ppvae.errors import RunError
from ppvae.storage import atomic_path, write_json, write_text


def test_what_was_written_appears_at_the_end_and_alone(tmp_path):
    target = tmp_path / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        assert temporary.name.startswith(".")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_string_is_a_path_too(tmp_path):
    write_text(str(tmp_path / "a.txt"), "ż")
    assert (tmp_path / "a.txt").read_bytes() == "ż".encode()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_a_failure_keeps_the_old_content_and_leaves_nothing_behind(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail_half_way():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_content_reaches_the_disk_before_the_name_changes(tmp_path, monkeypatch):
    calls = []

    def noting(name):
        original = getattr(os, name)

        def noted(*args):
            calls.append(name)
            return original(*args)

        return noted

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noting(name))
    write_text(tmp_path / "a.txt", "x")
    assert calls == ["fsync", "replace", "fsync"]


def test_the_file_has_the_permissions_of_any_new_file(tmp_path):
    write_text(tmp_path / "a.txt", "x")
    (tmp_path / "b.txt").write_text("x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.txt", "b.txt")}
    assert len(modes) == 1


def _fails_in_one_sentence(path: Path) -> None:
    with pytest.raises(RunError) as caught:
        write_text(path, "x" * 4096)
    assert str(path) in str(caught.value)
    assert str(caught.value).count(". ") == 0


def test_a_missing_folder(tmp_path):
    _fails_in_one_sentence(tmp_path / "none" / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("x")
    _fails_in_one_sentence(tmp_path / "file" / "a.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    _fails_in_one_sentence(tmp_path / "a.txt")


def test_no_room_keeps_the_old_content(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        _fails_in_one_sentence(target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_block_that_wrote_nothing(tmp_path):
    with pytest.raises(RunError, match=r"a\.txt"), atomic_path(tmp_path / "a.txt"):
        pass


def test_json_of_arrays_tensors_and_numbers_that_are_not_finite(tmp_path):
    value = {
        "tensor": torch.tensor([1.0, math.nan]),
        "array": np.arange(3),
        "scalar": np.float32(0.5),
        "flag": np.bool_(True),
        "count": 2**60,
        "tuple": (-math.inf, None, "ψ"),
        3: {"nested": math.inf},
    }
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "tensor": [1.0, None],
        "array": [0, 1, 2],
        "scalar": 0.5,
        "flag": True,
        "count": 2**60,
        "tuple": [None, None, "ψ"],
        "3": {"nested": None},
    }
    assert "ψ" in text


def test_json_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert list(tmp_path.iterdir()) == []
