"""Certificate, attribution and assessment of an earlier run: what they write, and that they leave the rest alone."""

import json
import shutil
import types

import numpy as np
import pytest
import torch
import xarray as xr

from ppvae.cli import main
from ppvae.errors import CheckpointError, OptionError, RunError
from ppvae.experiments import load
from ppvae.experiments.runs import main_job
from ppvae.experiments.runs.assess_run import _collapse_reasons, _verdict_sentence, assess_run
from ppvae.experiments.runs.attribute_run import attribute_run
from ppvae.experiments.runs.certify_run import certify_run
from ppvae.experiments.runs.collapse_run import collapse_run
from ppvae.experiments.runs.command_options import (
    AssessOptions,
    AttributeOptions,
    CertifyOptions,
    CollapseOptions,
    EvaluateOptions,
    MendOptions,
)
from ppvae.experiments.runs.evaluate_run import evaluate_run
from ppvae.experiments.runs.mend_run import mend_run
from ppvae.experiments.runs.saved_run import load_run
from ppvae.inference import Mended, Sampling, certify, estimate_evidence, latent_units
from ppvae.models import LinearGaussian
from ppvae.report.captions import CAPTIONS
from ppvae.storage import RunDirectory, Settings
from ppvae.with_errors import with_error


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a small VAE on counts, made once; each test copies nothing and adds a section of its own."""
    folder = tmp_path_factory.mktemp("examine")
    rng = np.random.default_rng(0)
    np.save(folder / "counts.npy", rng.binomial(4, rng.uniform(0.1, 0.9, size=(60, 1)), size=(60, 6)))
    settings = Settings(
        pair_args={"latent_dim": 2, "hidden": [5]},
        data=str(folder / "counts.npy"),
        likelihood="Binomial",
        likelihood_args={"total_count": 4},
        epochs=3,
        batch_size=16,
        method="importance",
        num_particles=40,
        out=str(folder / "runs"),
        accelerator="cpu",
    )
    return main_job.run(settings, say=lambda line: None).directory


def test_a_certificate_is_written_and_said(trained):
    found = certify_run(
        trained, CertifyOptions(num_data=4, num_chains=4, max_distributions=1, width=1.0), command="ppvae certify"
    )
    section = json.loads(trained.summary.read_text())["certificate"]
    assert section["kind"] == "real"
    assert section["command"] == "ppvae certify"
    assert section["num_data"] == 4
    with xr.open_dataset(trained.path / "certificate.nc", engine="h5netcdf") as saved:
        assert (saved["lower"] <= saved["log_evidence"]).all()
        assert saved.attrs["mean_lower"] == section["mean_lower"]
    assert (trained.path / "figures" / "certificate.png").stat().st_size > 5000
    printed = [row[1] for row in found.rows]
    assert printed[0] == f"{section['mean_lower']:.3f}"
    assert found.rows[2][1:] == ("none", "the remarks say why")  # four draws have no tail to be judged
    assert any("no upper end" in remark for remark in section["remarks"])


@pytest.mark.slow
def test_a_certificate_of_given_data_says_what_its_upper_end_rests_on(trained):
    found = certify_run(trained, CertifyOptions(num_data=4, max_distributions=32, width=1.0))
    assert found.summary["num_twins"] == 32
    assert found.rows[2][2] == "if the chains reach all of the posterior"
    assert found.summary["mean_lower"] < found.summary["mean_upper"] < found.summary["mean_lower"] + 1


def test_of_the_model_both_sides_are_certified(trained):
    found = certify_run(
        trained, CertifyOptions(split="model", num_data=6, num_chains=4, max_distributions=1, width=9.0)
    )
    assert found.summary["kind"] == "simulated"
    assert found.summary["split"] == "model"
    assert found.rows[2][2] == "certified with 95%"


def test_the_gap_is_split_and_the_parts_add_up(trained):
    found = attribute_run(trained, AttributeOptions(num_data=3, tolerance=0.5, steps=40))
    section = found.summary
    assert section["amortisation"] + section["family"] == pytest.approx(section["total"])
    assert section["log_evidence"] - section["elbo"] == pytest.approx(section["total"])
    with xr.open_dataset(trained.path / "gap_attribution.nc", engine="h5netcdf") as saved:
        np.testing.assert_allclose(saved["total"].mean(), section["total"])
    assert (trained.path / "figures" / "waterfall.png").stat().st_size > 5000


@pytest.mark.slow
def test_the_gap_of_a_pair_whose_guide_enumerates_is_split_in_two(tmp_path):
    settings = Settings(
        pair="SemiSupervisedVAE",
        pair_args={"latent_dim": 2, "hidden": [5]},
        epochs=1,
        batch_size=500,
        max_eval=4,
        method="importance",
        num_particles=40,
        out=str(tmp_path),
        accelerator="cpu",
    )
    directory = main_job.run(settings, say=lambda line: None).directory
    found = attribute_run(directory, AttributeOptions(num_data=2, tolerance=1.0, steps=10))
    section = directory.read_summary()["gap_attribution"]
    assert section["amortisation"] + section["family"] == pytest.approx(section["total"])
    assert "covariance" not in section
    assert [label.strip().partition(" ")[0] for label, _, _ in found.rows] == [
        "ELBO",
        "log",
        "gap",
        "amortisation",
        "family",
    ]
    assert "the family's part is not split further" in "".join(section["remarks"])
    assert "by full covariance" not in directory.report.read_text()
    assert (directory.path / "figures" / "waterfall.png").stat().st_size > 5000


@pytest.mark.slow
def test_the_guide_is_mended_and_opened_again(trained):
    before = trained.read_summary()
    found = mend_run(trained, MendOptions(num_data=3, tolerance=0.5, steps=100, attribution_steps=10))
    section = trained.read_summary()["mended"]
    assert section["gap_after"] < section["gap_before"]
    assert f"; ELBO {with_error(section, 'elbo_gain', '+')} nats per datum over 3 test data" in section["verdict"]
    assert section["gap_before"] - section["gap_after"] == pytest.approx(
        section["elbo_gain"] - section["log_evidence_difference"], abs=1e-6
    )
    # Of one model: within four errors, a false alarm at a rate of 6e-5.
    error = section["log_evidence_difference_standard_error"]
    assert abs(section["log_evidence_difference"]) < 4 * error + 0.5
    assert (trained.path / "figures" / "mended.png").stat().st_size > 5000
    assert {name: trained.read_summary()[name] for name in before if name != "mended"} == {
        name: before[name] for name in before if name != "mended"
    }
    assert "gap_attribution" in trained.read_summary()  # written by this command where no other did
    assert len(found.rows) == len(section["steps"]) + 4
    opened = load(trained.path, mended=True)
    assert isinstance(opened, Mended)
    assert [step.name for step in opened.steps] == [name.partition(" ")[2] for name in section["steps"]]
    assert opened.sample(2, seed=0).shape == (2, 6)


def test_a_run_that_was_not_mended_has_no_mended_guide(trained, tmp_path):
    copy = shutil.copytree(trained.path, tmp_path / "copy", ignore=shutil.ignore_patterns("mended*"))
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load(copy, mended=True)


def test_a_new_evaluation_keeps_the_sections_and_says_its_method(trained, undrawn):
    certify_run(trained, CertifyOptions(num_data=3, num_chains=4, max_distributions=1, width=9.0))
    before = trained.read_summary()
    result = evaluate_run(trained, EvaluateOptions(method="ais", num_chains=4, num_distributions=5, max_eval=3))
    after = trained.read_summary()
    assert after["certificate"] == before["certificate"]
    assert after["method"] == "annealing"
    assert after["evidence"]["num_data"] == 3
    assert after["evidence"]["num_particles"] == result.evidence.num_particles == 4
    with xr.open_dataset(trained.path / "evidence.nc", engine="h5netcdf") as saved:
        assert saved.attrs["method"] == "annealing"


@pytest.mark.slow
def test_auto_settles_by_tolerance(trained):
    evaluate_run(trained, EvaluateOptions(max_eval=3))
    khat = trained.path / "figures" / "khat.png"
    khat.unlink(missing_ok=True)
    result = evaluate_run(trained, EvaluateOptions(method="auto", tolerance=0.3, max_eval=3, seed=1))
    assert khat.exists()  # of the guide's draws, beside what settled the data
    again = evaluate_run(trained, EvaluateOptions(method="auto", tolerance=0.3, max_eval=3, seed=1))
    assert torch.equal(result.evidence.log_evidence, again.evidence.log_evidence)
    assert hasattr(result.evidence, "settled_by")


def test_an_unknown_method_is_refused(trained):
    with pytest.raises(OptionError, match="method must be auto, importance or ais; it is 'hmc'"):
        evaluate_run(trained, EvaluateOptions(method="hmc"))


def test_the_command_line_reaches_all_of_it(trained, monkeypatch, capsys):
    path, asked = str(trained.path), []
    numbers = types.SimpleNamespace(directory=trained, summary={"remarks": ["a remark"]}, table=lambda: "the table")

    def note(directory, options, command):
        assert directory == trained
        asked.append((options, command))
        return numbers

    monkeypatch.setattr("ppvae.experiments.runs.certify_run.certify_run", note)
    monkeypatch.setattr("ppvae.experiments.runs.attribute_run.attribute_run", note)
    monkeypatch.setattr("ppvae.experiments.runs.evaluate_run.evaluate_run", note)
    assert main(["certify", path, "--split", "model", "--num_data", "7", "--confidence", "0.9"]) == 0
    assert main(["gap", path, "--steps", "5"]) == 0
    assert main(["evaluate", path, "--method", "ais", "--num_distributions", "9"]) == 0
    out = capsys.readouterr()
    assert out.out.count("the table") == 3
    assert "Note: a remark" in out.err
    assert [options for options, _ in asked] == [
        CertifyOptions(split="model", num_data=7, confidence=0.9),
        AttributeOptions(steps=5),
        EvaluateOptions(method="ais", num_distributions=9),
    ]
    assert [command.split()[:3] for _, command in asked] == [
        ["ppvae", name, path] for name in ("certify", "gap", "evaluate")
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["certify"], "RUN is missing"),
        (["certify", "nowhere"], "nowhere is not a run directory"),
        (["gap", "nowhere"], "nowhere is not a run directory"),
        (["evaluate", "{run}", "--method", "hmc"], "method must be auto, importance or ais; it is 'hmc'"),
        (["certify", "{run}", "--confidence", "1.5"], "confidence must lie between 0 and 1"),
        (["certify", "{run}", "--width", "0"], "width"),
        (["mend", "nowhere"], "nowhere is not a run directory"),
        (["mend", "{run}", "--steps", "0"], "steps must be"),
        (["collapse", "nowhere"], "nowhere is not a run directory"),
        (["collapse", "{run}", "--steps", "0"], "steps must be"),
        (["mend", "{run}", "--num_data", "0"], "num_data must be a whole number of at least 1; it is 0"),
        (["gap", "{run}", "--tolerance", "-1"], "tolerance must be"),
        (["gap", "{run}", "--steps", "0"], "steps must be"),
        (["certify", "{run}", "--num_data", "0"], "num_data must be a whole number of at least 1; it is 0"),
        (["gap", "{run}", "--num_data", "-1"], "num_data must be a whole number of at least 1; it is -1"),
        (["posterior", "{run}", "--num_data", "0"], "num_data must be a whole number of at least 1; it is 0"),
        (["posterior", "{run}", "--num_unit_data", "2"], "num_unit_data must be a whole number of at least 3; it is 2"),
        (["posterior", "{run}", "--num_simulations", "5"], "num_simulations must be a whole number of at least 20"),
        (["posterior", "nowhere"], "nowhere is not a run directory"),
    ],
)
def test_bad_input_is_one_sentence_and_harms_nothing(trained, words, message, capsys):
    before = trained.summary.read_bytes()
    code = main([word.format(run=trained.path) for word in words])
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert "Traceback" not in error
    assert trained.summary.read_bytes() == before


@pytest.mark.slow
def test_causes_of_unused_units_are_written_and_said(tmp_path):
    """A linear pair that has hardly been trained: its guide starts as the prior."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(100, 1)) * [2.0, 1.0, -1.0] + 0.3 * rng.normal(size=(100, 3)))
    settings = Settings(
        pair="LinearGaussian",
        pair_args={"latent_dim": 1},
        data=str(tmp_path / "x.npy"),
        epochs=1,
        learning_rate=1e-5,
        method="importance",
        num_particles=20,
        out=str(tmp_path / "runs"),
        accelerator="cpu",
    )
    run = main_job.run(settings, say=lambda line: None).directory
    before = run.checkpoint.read_bytes()
    found = collapse_run(run, CollapseOptions(steps=100, learning_rate=0.05), command="ppvae collapse")
    section = json.loads(run.summary.read_text())["collapse"]
    assert section["command"] == "ppvae collapse"
    assert section["verdict"] == "0 of 1 latent units are active; unused: 1 by optimiser"
    assert section["causes"]["z[0]"]["cause"] == "optimiser"
    assert section["causes"]["z[0]"]["gain"] > 0
    assert section["trials"]["1 longer"]["seconds"] > 0
    assert (run.path / "figures" / "collapse.png").stat().st_size > 5000
    assert "Why latent units are unused" in run.report.read_text()
    assert found.rows[0][0] == "trial: longer"
    assert run.checkpoint.read_bytes() == before


def test_a_damaged_summary_is_written_anew(trained, undrawn):
    trained.summary.write_text("{")
    evaluate_run(trained, EvaluateOptions("importance", max_eval=3))
    assert RunDirectory.open(trained.path).read_summary()["evidence"]["num_data"] == 3


def test_what_is_written_is_what_inference_says(trained, undrawn):
    """The trained pair, the data and the seed go to inference as they are."""
    run = load_run(trained, max_eval=3, seed=5)
    same = estimate_evidence(run.pair.model, run.pair.guide, run.x, tolerance=0.5, seed=5)
    found = attribute_run(trained, AttributeOptions(num_data=3, tolerance=0.5, steps=20, seed=5))
    assert found.summary["log_evidence"] == pytest.approx(float(same.log_evidence.mean()))
    few = Sampling(num_chains=4, max_distributions=1)
    direct = certify(run.pair.model, run.pair.guide, run.x, width=9.0, sampling=few, seed=5)
    by_run = certify_run(trained, CertifyOptions(num_data=3, seed=5, num_chains=4, max_distributions=1, width=9.0))
    assert by_run.summary["mean_lower"] == pytest.approx(direct.mean_lower)


@pytest.mark.slow
def test_the_guide_is_looked_at_as_a_posterior(trained):
    found = assess_run(trained, AssessOptions(num_data=2, num_simulations=60, seed=3), command="ppvae posterior")
    summary = trained.read_summary()
    assert summary["latent_units"]["num_units"] == 2
    assert summary["calibration"]["verdict"].split()[0] in {"calibrated", "bad", "cannot"}
    assert summary["quality"]["num_data"] == 2
    for name in ("latent_units", "calibration", "quality"):
        assert (trained.path / f"{name}.nc").is_file()
        assert summary[name]["command"] == "ppvae posterior"
    drawn = {file.stem for file in (trained.path / "figures").glob("*.png")}
    assert {"latent_units", "latent_units_map", "calibration_prior", "calibration_data", "quality_exact"} < drawn
    assert {"ppc_posterior", "ppc_prior", "khat"} < drawn
    assert ("quality_forest" in drawn) == (summary["quality"]["num_judged"] > 0)
    assert ("quality_refused" in drawn) == (summary["quality"]["num_judged"] < 2)
    assert drawn <= set(CAPTIONS)
    with xr.open_datatree(trained.path / "reference.nc", engine="h5netcdf") as reference:
        assert reference["posterior"]["z"].shape == (16, 100, 2, 2)
        assert reference["sample_stats"]["converged"].sum() == summary["quality"]["num_judged"]
    assert [row[0].strip() for row in found.rows][:3] == ["latent units", "calibration", "guide against reference"]
    run = load_run(trained, max_eval=500, seed=3)
    direct = latent_units(run.pair.model, run.pair.guide, run.x, seed=3)
    with xr.open_dataset(trained.path / "latent_units.nc", engine="h5netcdf") as saved:
        np.testing.assert_array_equal(saved["kl"], direct.kl)


@pytest.mark.parametrize(
    ("command", "options"),
    [(certify_run, CertifyOptions()), (attribute_run, AttributeOptions()), (assess_run, AssessOptions())],
)
def test_a_run_that_was_not_evaluated_is_refused_before_any_work(trained, tmp_path, command, options):
    bare = RunDirectory(tmp_path / "bare")
    bare.path.mkdir()
    for name in ("config.yaml", "checkpoint.pt"):
        (bare.path / name).write_bytes((trained.path / name).read_bytes())
    with pytest.raises(RunError, match="was not evaluated yet: `ppvae evaluate"):
        command(bare, options)
    assert sorted(file.name for file in bare.path.iterdir()) == ["checkpoint.pt", "config.yaml"]


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ([("good",)] * 3, "good for 3 of 3 data"),
        ([("cannot tell",)] * 2, "cannot tell for 2 of 2 data"),
        ([("too wide",), ("shifted", "too wide"), ("good",)], "wrong for 2 of 3 data, most often shifted (1)"),
        (
            [("cannot tell",)] * 3 + [("too narrow",)] * 2,
            "wrong for 2 of 2 data that could be judged, most often too narrow (2); cannot tell for 3 of 5 data",
        ),
    ],
)
def test_the_verdict_speaks_of_what_was_judged_in_a_fixed_order(verdicts, said):
    assert _verdict_sentence(tuple(verdicts)) == said


def test_ctrl_c_keeps_what_was_finished(trained, undrawn, monkeypatch):
    monkeypatch.setattr("ppvae.experiments.runs.assess_run.sample_posterior", _interrupt)
    with pytest.raises(KeyboardInterrupt, match="what was finished stands in"):
        assess_run(trained, AssessOptions(num_data=2, num_simulations=70, seed=4))
    assert trained.read_summary()["calibration"]["prior_num_simulations"] == 70


def _interrupt(*_, **__):
    raise KeyboardInterrupt


MIXTURE = """
import pyro
import pyro.distributions as dist
import torch


def model(x):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])), infer={"enumerate": "parallel"})
        z = pyro.sample("z", dist.Normal(torch.tensor([-2.0, 2.0])[k], 1.0))
        pyro.sample("x", dist.Normal(z.unsqueeze(-1), 0.5).expand(z.shape + (3,)).to_event(1), obs=x)


def guide(x):
    scale = pyro.param("scale", torch.tensor(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(scale * x.mean(-1), 0.5))
"""


@pytest.mark.slow
def test_a_pair_that_sums_classes_out_is_looked_at_on_simulations_from_its_prior(tmp_path):
    (tmp_path / "mixture.py").write_text(MIXTURE)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32))
    settings = Settings(
        pair=str(tmp_path / "mixture.py"),
        data=str(tmp_path / "x.npy"),
        epochs=2,
        method="importance",
        num_particles=50,
        out=str(tmp_path),
        accelerator="cpu",
    )
    run = main_job.run(settings, say=lambda line: None).directory
    assess_run(run, AssessOptions(num_data=2, num_simulations=60))
    summary = run.read_summary()
    assert "prior_symmetric_kl" in summary["calibration"]
    assert "data_symmetric_kl" not in summary["calibration"]
    assert summary["quality"]["num_judged"] == 2
    drawn = {file.stem for file in (run.path / "figures").glob("*.png")}
    assert "calibration_prior" in drawn
    assert not {"calibration_data", "latent_units_map", "quality_exact", "quality_pair"} & drawn  # one coordinate


@pytest.mark.parametrize(("noise", "why"), [(2.0, "the likelihood itself holds the column"), (0.1, "train longer")])
def test_a_linear_decoder_is_told_why_its_unit_has_collapsed(noise, why):
    """The second column is zero, and the noise above or below what the first leaves out, a variance of 1."""
    x = torch.tensor([[2.0, 1.0], [-2.0, 1.0], [2.0, -1.0], [-2.0, -1.0]]).repeat(50, 1)
    pair = LinearGaussian(num_features=2, latent_dim=2)
    with torch.no_grad():
        pair.weight.copy_(torch.tensor([[1.9, 0.0], [0.0, 0.0]]))
        pair.log_noise_scale.fill_(np.log(noise) / 2)
    pair.set_exact_guide()
    units = latent_units(pair.model, pair.guide, x, seed=0)
    run = types.SimpleNamespace(pair=pair, data=types.SimpleNamespace(data=types.SimpleNamespace(some=lambda: x)))
    (sentence,) = _collapse_reasons(run, units)
    assert sentence.startswith("z[1] has collapsed: ")
    assert why in sentence
    assert _collapse_reasons(types.SimpleNamespace(pair=None), units) == []
