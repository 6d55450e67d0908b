"""`ppvae run --pair NAME` and nothing more: every pair has data, keeps the contract on them, and trains."""

import pytest
import torch
from gate import slow_those

from ppvae.cli.catalogue import pairs
from ppvae.errors import OptionError, PairError
from ppvae.experiments.runs import main_job
from ppvae.experiments.runs.make_pair import with_data
from ppvae.experiments.runs.preparation import check_pair
from ppvae.experiments.runs.run_data import load_pair_and_data
from ppvae.storage import Settings

# What `ppvae run` says of those that it cannot measure: one needs the targets' inputs, the other has no log p(x).
REFUSED = {"FeedForward": "made from the array y, which no option holds", "Autoencoder": "has no log p\\(x\\)"}
LONG = {
    "BoundedLatentVAE",
    "ConvolutionalVAE",
    "CountVAE",
    "DeepMarkovModel",
    "DiscreteVAE",
    "FlowVAE",
    "GaussianMixtureVAE",
    "HierarchicalVAE",
    "MIWAE",
    "MixturePriorVAE",
    "RelaxedVAE",
    "VampPriorVAE",
}
NAMES = sorted(set(pairs()) - set(REFUSED))


@pytest.fixture(autouse=True)
def single_precision():
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", slow_those(LONG, NAMES))
def test_every_pair_keeps_the_contract_on_its_data(name):
    settings = with_data(Settings(pair=name))
    pair, run_data = load_pair_and_data(settings)
    assert settings.data != "auto"
    assert [finding for finding in check_pair(pair, run_data) if finding.fatal] == []
    assert run_data.unit == "datum"


@pytest.mark.parametrize("name", REFUSED)
def test_a_pair_that_cannot_be_measured_is_refused_in_a_sentence(name, tmp_path):
    with pytest.raises((OptionError, PairError), match=REFUSED[name]):
        main_job.run(Settings(pair=name, epochs=1, out=str(tmp_path)), say=lambda sentence: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_pair_is_trained_and_measured_by_one_command(name, tmp_path):
    settings = Settings(pair=name, epochs=3, max_eval=5, out=str(tmp_path), name="run")
    evaluation = main_job.run(settings, say=lambda sentence: None)
    assert evaluation.evidence.log_evidence.isfinite().all()
    assert (tmp_path / "run" / "posterior.nc").is_file()
    assert (tmp_path / "run" / "summary.json").is_file()
