"""The run directory: new each time, whole or not at all, read back as it was written."""

import csv
import errno
import os

import pytest
import xarray as xr

from ppvae.errors import OptionError, RunError
from ppvae.storage import RunDirectory, Settings, all_runs


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(data="digits", out=str(tmp_path / "runs"))


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


class TestCreate:
    def test_every_run_has_a_folder_of_its_own(self, settings):
        paths = {RunDirectory.create(settings).path for _ in range(5)}
        assert len(paths) == 5
        assert all(path.is_dir() and "VAE-digits" in path.name for path in paths)

    def test_names_pair_and_data_by_their_last_part(self, tmp_path):
        settings = Settings(pair="some folder/my_file.py:MyPair", data="/far away/my data.npy", out=str(tmp_path))
        assert RunDirectory.create(settings).path.name.endswith("-MyPair-my-data")

    def test_a_name_is_taken_once(self, tmp_path):
        settings = Settings(out=str(tmp_path), name="first")
        (RunDirectory.create(settings).path / "note.txt").write_text("mine")
        with pytest.raises(RunError, match=r"there is a run at .*first already"):
            RunDirectory.create(settings)
        assert (tmp_path / "first" / "note.txt").read_text() == "mine"

    def test_out_below_a_file(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        for out in (tmp_path / "file", tmp_path / "file" / "runs"):
            with pytest.raises(RunError, match="give another"):
                RunDirectory.create(Settings(out=str(out)))
        assert (tmp_path / "file").read_text() == "mine"


class TestSettings:
    def test_come_back_as_they_went_but_for_the_name(self, tmp_path):
        settings = Settings(
            pair_args={"latent_dim": 3, "hidden": [4, 5]}, data="digits", patience=None, out=str(tmp_path), name="n"
        )
        directory = RunDirectory.create(settings)
        directory.write_settings(settings)
        back = RunDirectory.open(directory.path).read_settings()
        assert back.as_dict() == settings.as_dict() | {"name": None}

    def test_paths_hold_from_any_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        settings = Settings(pair="my_file.py:MyPair", data="my.npy", data_dir="here").absolute()
        assert settings.pair == f"{tmp_path}/my_file.py:MyPair"
        assert settings.data == f"{tmp_path}/my.npy"
        assert settings.data_dir == f"{tmp_path}/here"
        names = Settings(pair="package.module:MyPair", data="mnist").absolute()
        assert (names.pair, names.data) == ("package.module:MyPair", "mnist")

    @pytest.mark.parametrize("text", ["epochs: [1", "epcohs: 3", "- 1", "epochs: many", "epochs: -1", ""])
    def test_a_damaged_file_is_refused(self, tmp_path, text):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(RunError, match=r"config.yaml cannot be read .*: restore it") as caught:
            RunDirectory.open(tmp_path).read_settings()
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("epochs", 0),
            ("batch_size", -1),
            ("patience", 0),
            ("num_particles", 0),
            ("max_eval", 0),
            ("learning_rate", -1e-3),
            ("learning_rate", float("nan")),
            ("seed", -1),
            ("seed", 2**32),
            ("name", "a/b"),
            ("name", ""),
            ("name", ".."),
        ],
    )
    def test_numbers_without_meaning_are_refused(self, option, value):
        with pytest.raises(OptionError, match=option):
            Settings(**{option: value}).check()


class TestFiles:
    def test_metrics_are_a_row_per_epoch(self, settings):
        directory = RunDirectory.create(settings)
        directory.write_metrics([{"epoch": 1, "elbo": -2.5}, {"epoch": 2, "elbo": -1.25}])
        with (directory.path / "metrics.csv").open() as file:
            assert list(csv.DictReader(file)) == [{"epoch": "1", "elbo": "-2.5"}, {"epoch": "2", "elbo": "-1.25"}]

    def test_no_epoch_gives_an_empty_table(self, settings):
        directory = RunDirectory.create(settings)
        directory.write_metrics([])
        assert (directory.path / "metrics.csv").read_text() == ""

    def test_netcdf_comes_back(self, settings):
        directory = RunDirectory.create(settings)
        dataset = xr.Dataset({"gap": ("datum", [1.0, 2.0])}, attrs={"seed": 3})
        directory.write_netcdf("evidence", dataset)
        with xr.open_dataset(directory.path / "evidence.nc", engine="h5netcdf") as back:
            xr.testing.assert_identical(back.load(), dataset)

    def test_a_full_disk_leaves_the_old_file(self, settings, monkeypatch):
        directory = RunDirectory.create(settings)
        old, new = (xr.Dataset({"gap": ("datum", [value])}) for value in (1.0, 2.0))
        directory.write_netcdf("evidence", old)
        directory.write_summary({"elbo": -1.0})
        before = {file: file.read_bytes() for file in directory.path.iterdir()}
        monkeypatch.setattr(os, "fsync", full_disk)
        with pytest.raises(RunError, match="No space left on device"):
            directory.write_netcdf("evidence", new)
        with pytest.raises(RunError, match="No space left on device"):
            directory.write_summary({"elbo": -2.0})
        assert {file: file.read_bytes() for file in directory.path.iterdir()} == before

    def test_summary(self, settings):
        directory = RunDirectory.create(settings)
        assert directory.read_summary() is None
        directory.write_summary({"elbo": -1.5, "pareto_k": float("nan")})
        assert directory.read_summary() == {"elbo": -1.5, "pareto_k": None}
        directory.summary.write_text('{"elbo": -1')
        with pytest.raises(RunError, match=r"summary.json is damaged"):
            directory.read_summary()


def test_all_runs_are_folders_with_settings(settings, tmp_path):
    assert all_runs(tmp_path / "nowhere") == []
    for name in ("b", "a"):
        RunDirectory.create(Settings(out=str(tmp_path), name=name)).write_settings(settings)
    (tmp_path / "other").mkdir()
    assert [directory.path.name for directory in all_runs(tmp_path)] == ["a", "b"]
