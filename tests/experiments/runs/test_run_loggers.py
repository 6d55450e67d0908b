"""Loggers that the command line names: what they are given, and what cannot be one."""

import csv

import numpy as np
import pytest

from ppvae.errors import OptionError, PpvaeError
from ppvae.experiments.runs import main_job
from ppvae.experiments.runs.run_loggers import loggers_of
from ppvae.storage import Settings

pytestmark = pytest.mark.usefixtures("undrawn")

OWN = """
class Own:
    def __init__(self, save_dir):
        self.file = open(save_dir + "/own.txt", "w")

    def log_metrics(self, metrics, step):
        self.file.write(f"{step} {metrics['elbo']}\\n")

    def finalize(self, status):
        self.file.write(status)
        self.file.close()


class Missing:
    def __init__(self):
        import no_such_package


number = 3


def wrong():
    return "no logger"


def broken():
    raise ValueError("no address")
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "my_loggers.py").write_text(OWN)
    return f"{tmp_path}/my_loggers.py"


def rows(file):
    with file.open() as opened:
        return list(csv.DictReader(opened))


def test_a_run_gives_each_epoch_to_fabrics_csv_logger_and_to_ones_own(tmp_path, own):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(30, 3)))
    settings = Settings(
        pair="LinearGaussian",
        pair_args={"latent_dim": 1},
        data=str(tmp_path / "x.npy"),
        epochs=3,
        num_particles=20,
        method="importance",
        loggers=["csv", f"{own}:Own"],
        accelerator="cpu",
        out=str(tmp_path / "runs"),
        name="one",
    )
    folder = main_job.run(settings, say=lambda line: None).directory.path
    written = rows(folder / "metrics.csv")
    (file,) = folder.glob("lightning_logs/version_0/metrics.csv")
    assert [float(row["elbo"]) for row in rows(file)] == pytest.approx([float(row["elbo"]) for row in written])
    *lines, last = (folder / "own.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert last == "success"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("cvs", "there is no logger 'cvs' .did you mean 'csv'"),
        ("no_such_package.loggers:Logger", "there is no module"),
        ("OWN:Nothing", "nothing of the name"),
        ("OWN:number", "neither a logger nor a class"),
        ("OWN:wrong", "has no method log_metrics"),
        ("OWN:broken", "cannot be made .ValueError: no address"),
        ("OWN:Missing", "needs a package that is not installed"),
    ],
)
def test_what_is_no_logger_is_named(own, tmp_path, spec, said):
    with pytest.raises(PpvaeError, match=said):
        loggers_of([spec.replace("OWN", own)], tmp_path)


def test_a_logger_with_no_package_is_refused_before_the_training(tmp_path, own):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(30, 3)))
    settings = Settings(
        pair="LinearGaussian",
        pair_args={"latent_dim": 1},
        data=str(tmp_path / "x.npy"),
        loggers=[f"{own}:Missing"],
        out=str(tmp_path / "runs"),
    )
    with pytest.raises(OptionError, match="not installed"):
        main_job.run(settings, say=lambda line: None)
    assert not list((tmp_path / "runs").iterdir())
