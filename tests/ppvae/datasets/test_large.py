"""Large data stay in their file: the same rows, the same training to the bit, and bounded memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ppvae.datasets import Rows, Split, data_hash, large, large_sources, load_dataset
from ppvae.errors import DataError, DatasetError, OptionError
from ppvae.inference import fit, importance_evidence, in_shards
from ppvae.models import LinearGaussian

NUM, WIDTH = 600, 4


@pytest.fixture
def x():
    values = np.random.default_rng(0).standard_normal((NUM, WIDTH)).astype(np.float32)
    return values @ np.random.default_rng(1).standard_normal((WIDTH, WIDTH)).astype(np.float32)


@pytest.fixture
def many(monkeypatch):
    """Data of more than 100 rows are large."""
    monkeypatch.setattr(large_sources, "MANY_ROWS", 100)


class Items(torch.utils.data.Dataset):
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return torch.from_numpy(self.x[i]), i


def sources(x, folder):
    zarr = pytest.importorskip("zarr")
    np.save(folder / "x.npy", x)
    pd.DataFrame(x, columns=list("abcd")).to_parquet(folder / "x.parquet", row_group_size=70)
    zarr.open_array(folder / "x.zarr", mode="w", shape=x.shape, chunks=(90, 3), dtype="float32")[:] = x
    files = [folder / f"x.{kind}" for kind in ("npy", "parquet", "zarr")]
    return [*files, Items(x), np.load(files[0], mmap_mode="r")]


def test_all_kinds_of_sources_give_the_rows_that_are_read_at_once(tmp_path, x, monkeypatch):
    whole = load_dataset(x)
    assert not whole.streams
    small = load_dataset(sources(x, tmp_path)[2])
    assert torch.equal(small.train, whole.train)
    monkeypatch.setattr(large_sources, "MANY_ROWS", 100)
    for source in sources(x, tmp_path):
        data = load_dataset(source)
        assert data.streams
        assert data.train.shape == whole.train.shape
        train = whole.train[whole.rows["train"].argsort()]
        assert torch.equal(data.train[:], train)
        index = torch.tensor([5, 400, 3])
        assert torch.equal(data.train[index], train[index])
        assert torch.equal(data.train[-3:], train[-3:])
        assert torch.equal(data.train[10:100:7], train[10:100:7])
        assert torch.equal(data.test, whole.test[whole.rows["test"].argsort()])
        assert torch.equal(torch.cat([*data.portions("train")]), train)


def test_a_training_has_the_bits_of_one_in_memory(tmp_path, x, many):
    np.save(tmp_path / "x.npy", x)
    data, ends = load_dataset(tmp_path / "x.npy"), []
    assert data.streams
    for name, train, more in (("file", data, {}), ("memory", data.train[:], {"validation": data.validation})):
        torch.manual_seed(0)
        pair = LinearGaussian(num_features=WIDTH, latent_dim=2)
        kept = {"checkpoint": tmp_path / f"{name}.pt", "progress": False}
        fit(pair.model, pair.guide, train, epochs=2, **kept, **more)
        ends.append(pair.weight.detach().clone())
    assert torch.equal(*ends)
    go_on = {"epochs": 3, "checkpoint": tmp_path / "file.pt", "resume": True, "progress": False}
    assert len(fit(pair.model, pair.guide, data, **go_on).history) == 3


def test_context_by_row_goes_with_the_rows(tmp_path, x, many):
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "number.npy", np.arange(NUM))
    data = load_dataset(tmp_path / "x.npy", context=[tmp_path / "number.npy"])
    rows, numbers = data.batch("train", torch.tensor([0, 7, 100]))
    assert torch.equal(rows, torch.from_numpy(x)[numbers].to(rows))
    rows, numbers = data.batch("test")
    assert torch.equal(rows, torch.from_numpy(x)[numbers].to(rows))


def table(x, folder):
    """Data with a class, a covariate, a word and the part of each row beside them, in groups of rows."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(x, columns=list("abcd")).assign(
        kind=np.arange(NUM) // 200,  # the classes one after the other: the first rows have one only
        dose=rng.integers(0, 9, NUM) * 0.5,
        word=rng.choice(["red", "green", "blue"], NUM),
        part=rng.choice(["train", "val", "test"], NUM),
        person_id=rng.permutation(NUM),
    )
    frame.to_parquet(folder / "x.parquet", row_group_size=70)
    return frame


def test_columns_beside_the_data_are_those_of_a_table_that_is_read_whole(tmp_path, x, monkeypatch):
    frame = table(x, tmp_path)
    roles = {"label_column": "word", "context_columns": ["kind", "word_too", "dose"], "drop_columns": ["person_id"]}
    frame.assign(word_too=frame["word"]).to_parquet(tmp_path / "x.parquet", row_group_size=70)
    for split in ("part", Split(stratify="kind"), None):
        given = roles | {"split": split, "drop_columns": ["person_id"] + ["part"] * (split != "part")}
        monkeypatch.setattr(large_sources, "MANY_ROWS", 10_000)
        whole = load_dataset(tmp_path / "x.parquet", **given)
        monkeypatch.setattr(large_sources, "MANY_ROWS", 100)
        data = load_dataset(tmp_path / "x.parquet", **given)
        assert data.streams
        assert data.columns == whole.columns == tuple("abcd")
        assert data.label_names == whole.label_names == ("blue", "green", "red")
        assert [one.name for one in data.context] == [one.name for one in whole.context] == roles["context_columns"]
        assert data.notes[1:] == whole.notes  # which number stands for which word
        for part in ("train", "validation", "test"):
            order = whole.rows[part].argsort()
            assert torch.equal(data.rows[part], whole.rows[part][order])
            assert torch.equal(data.labels[part], whole.labels[part][order])
            for one, other in zip(data.batch(part), whole.batch(part, order), strict=True):
                assert torch.equal(one, other)
        some = data.sampled(50)
        numbers = some.rows["train"].numpy()
        assert [data.label_names[i] for i in some.labels["train"]] == frame["word"].to_numpy()[numbers].tolist()
    changed = frame.assign(word_too=frame["word"], dose=frame["dose"] + 1)
    changed.to_parquet(tmp_path / "y.parquet")
    assert data_hash(data) != data_hash(load_dataset(tmp_path / "y.parquet", **given))


def test_held_out_rows_of_a_column_are_a_random_part_of_many(tmp_path, x, many, monkeypatch):
    table(x, tmp_path)
    monkeypatch.setattr(large, "MOST_HELD_OUT", 30)
    roles = {"drop_columns": ["person_id", "word", "dose"], "label_column": "kind"}
    data = load_dataset(tmp_path / "x.parquet", split="part", **roles)
    assert len(data.validation) == len(data.test) == 30
    assert set(data.labels["test"].tolist()) == {0, 1, 2}  # by chance not so for one seed in 10⁵


def test_columns_that_may_be_no_measurements_are_asked_about(tmp_path, x, many):
    frame = table(x, tmp_path)
    frame[[*"abcd", "kind"]].to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"column 'kind' holds 3 different whole numbers.*--context_columns NAME"):
        load_dataset(tmp_path / "x.parquet")
    assert load_dataset(tmp_path / "x.parquet", label_column="none").columns == (*"abcd", "kind")
    frame[[*"abcd", "person_id"]].to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="column 'person_id' is named like an identity"):
        load_dataset(tmp_path / "x.parquet")


def test_a_streamed_context_column_trains_as_one_in_memory(tmp_path, x, many):
    import pyro
    import pyro.distributions as dist

    def model(y, dose):
        slope = pyro.param("slope", torch.zeros(WIDTH))
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = z.unsqueeze(-1) + slope * dose.unsqueeze(-1)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=y)

    def guide(y, dose):
        with pyro.plate("data", len(y)):
            pyro.sample("z", dist.Normal(pyro.param("w", torch.tensor(0.1)) * y.sum(-1), 1.0))

    table(x, tmp_path)
    drop = ["kind", "word", "part", "person_id"]
    data = load_dataset(tmp_path / "x.parquet", context_columns="dose", drop_columns=drop)
    ends = []
    for source, more in (
        (data, {}),
        ((data.train[:], *data.beside("train")), {"validation": data.batch("validation")}),
    ):
        pyro.clear_param_store()
        torch.manual_seed(0)
        ends.append(fit(model, guide, source, epochs=2, progress=False, **more).parameters["slope"])
    assert torch.equal(*ends)


def test_standardised_rows_have_the_map_and_its_jacobian(tmp_path, x, many):
    np.save(tmp_path / "x.npy", 10 * x + 3)
    data, whole = (load_dataset(source, standardise=True) for source in (tmp_path / "x.npy", 10 * x + 3))
    assert data.streams
    # All 480 training rows are fewer than the 100 000 by which rows that stream are standardised.
    assert torch.allclose(data.train[:], whole.train[whole.rows["train"].argsort()])
    assert torch.allclose(data.standardisation.scale, whole.standardisation.scale)
    assert data_hash(data)


def test_held_out_rows_that_are_trained_on_are_counted(tmp_path, x, many):
    order = load_dataset(x).rows
    x[order["test"][:3]] = x[order["train"][:3]]
    np.save(tmp_path / "x.npy", x)
    assert load_dataset(tmp_path / "x.npy").duplicates == load_dataset(x).duplicates == {"validation": 0, "test": 3}


@pytest.mark.parametrize(
    ("value", "told"), [(np.inf, r"infinite or overlarge value in row 7, column 2"), (np.nan, "1 missing value, ")]
)
def test_values_that_cannot_be_used_are_found(tmp_path, x, many, value, told):
    x[7, 2] = value
    np.save(tmp_path / "x.npy", x)
    if np.isinf(value):
        with pytest.raises(DataError, match=told):
            load_dataset(tmp_path / "x.npy")
    else:
        assert f"{told}the first in row 7, column 2" in load_dataset(tmp_path / "x.npy").missing


def test_what_needs_all_rows_is_refused_in_a_sentence(tmp_path, x, many, monkeypatch):
    table = pd.DataFrame(x, columns=list("abcd")).assign(name="me")
    table.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"column 'name' of .* holds .*: name it .*, or leave .* --drop_columns name"):
        load_dataset(tmp_path / "x.parquet")
    assert load_dataset(tmp_path / "x.parquet", drop_columns="name").columns == tuple("abcd")
    with pytest.raises(OptionError, match=r"context_columns names 'nme', .*did you mean 'name'.*columns are a, b, c"):
        load_dataset(tmp_path / "x.parquet", context_columns="nme")
    with pytest.raises(OptionError, match="drop_columns names 'name', which another option uses"):
        load_dataset(tmp_path / "x.parquet", drop_columns="name", label_column="name")
    with pytest.raises(DataError, match="none is left as data"):
        load_dataset(tmp_path / "x.parquet", drop_columns=[*"abcd", "name"])
    np.save(tmp_path / "x.npy", x)
    for source in (Items(x), tmp_path / "x.npy"):
        with pytest.raises(DataError, match=r"has no names of columns, and split_column names 'a': write it as .parq"):
            load_dataset(source, split="a")
    (tmp_path / "no.zarr").mkdir()
    with pytest.raises(DatasetError, match=r"no.zarr holds no Zarr array"):
        load_dataset(tmp_path / "no.zarr")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(large_sources.tempfile, "tempdir", None)
    monkeypatch.setattr(np, "ascontiguousarray", full_disk)
    with pytest.raises(DatasetError, match=r"could not be laid out in .* \(No space left on device\): name a folder"):
        load_dataset(Items(x))


def full_disk(*_, **__):
    raise OSError(28, "No space left on device")


def test_a_pair_that_runs_on_all_data_only_is_refused(tmp_path, x, many):
    import pyro
    import pyro.distributions as dist

    def model(y):
        weight = pyro.sample("weight", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("x", dist.Normal(weight, 1.0).expand([len(y), WIDTH]).to_event(1), obs=y)

    def guide(y):
        pyro.sample("weight", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    np.save(tmp_path / "x.npy", x)
    with pytest.raises(OptionError, match="too large to be held in memory"):
        fit(model, guide, load_dataset(tmp_path / "x.npy"), epochs=1, progress=False)


def test_shards_read_their_rows_from_the_file(tmp_path, x):
    np.save(tmp_path / "x.npy", x[:50])
    torch.manual_seed(0)
    pair = LinearGaussian(num_features=WIDTH, latent_dim=2)
    options = {"num_particles": 20, "shard_size": 25, "progress": False}
    found = [
        in_shards(importance_evidence, pair.model, pair.guide, rows, directory=tmp_path / name, **options)
        for name, rows in (("file", Rows.of(tmp_path / "x.npy")), ("memory", torch.from_numpy(x[:50]).double()))
    ]
    assert torch.equal(found[0].log_evidence, found[1].log_evidence)


MEASURED = """
import sys, torch
from ppvae.datasets import load_dataset, large_sources
from ppvae.inference import fit
from ppvae.models import LinearGaussian
large_sources.MANY_ROWS = 1000
data = load_dataset(sys.argv[1])
pair = LinearGaussian(num_features=64, latent_dim=2)
for _ in range(50):
    data.draw(data.train[torch.randint(len(data.train), (2000,))])
# Not getrusage, which counts what the parent had when it started this process.
print(next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak there")
def test_the_peak_of_memory_does_not_grow_with_the_file(tmp_path):
    """A file of 51 MB and one of 256 MB: the peaks differ by less than 100 MB, of which row numbers are some."""
    peaks = []
    for number in (200_000, 1_000_000):
        stored = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (number, 64))
        for start in range(0, number, 100_000):
            stored[start : start + 100_000] = np.random.default_rng(start).standard_normal((1, 64))
        del stored
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(tmp_path / "x.npy")], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 100, peaks
