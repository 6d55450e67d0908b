"""The main job at its smallest size: what it writes, that it repeats, goes on and stops as it says."""

import csv
import math
import shutil
import signal
import types

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
import yaml
from pairs import build

from ppvae.datasets import Dataset, evenly_spaced, load_dataset
from ppvae.errors import CheckpointError, OptionError, PairError
from ppvae.experiments.figures import evidence_figures
from ppvae.experiments.runs import estimate, main_job
from ppvae.experiments.runs.command_options import EvaluateOptions
from ppvae.experiments.runs.evaluate_run import evaluate_run
from ppvae.experiments.runs.make_pair import make_pair
from ppvae.experiments.runs.preparation import check_pair
from ppvae.experiments.runs.run_data import RunData, load_pair_and_data
from ppvae.experiments.runs.samples import draw_samples
from ppvae.experiments.runs.saved_run import load_run
from ppvae.inference import importance_evidence
from ppvae.inference.svi.checkpoint import load_parameters
from ppvae.models import VAE, Binomial, LinearGaussian
from ppvae.storage import RunDirectory, Settings


@pytest.fixture
def counts(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "counts.npy"
    np.save(path, rng.binomial(4, rng.uniform(0.1, 0.9, size=(60, 1)), size=(60, 6)))
    return path


@pytest.fixture
def settings(counts, tmp_path):
    return Settings(
        pair_args={"latent_dim": 2, "hidden": [5]},
        data=str(counts),
        likelihood="Binomial",
        likelihood_args={"total_count": 4},
        epochs=3,
        batch_size=16,
        method="importance",
        num_particles=40,
        out=str(tmp_path / "runs"),
        accelerator="cpu",
    )


def said():
    lines = []
    return lines, lines.append


def run(settings, **options):
    return main_job.run(settings, say=said()[1], **options)


@pytest.fixture(scope="module")
def shelf():
    """What the first test that asks for the finished run leaves to the others."""
    return {}


@pytest.fixture
def finished(shelf, settings, tmp_path_factory):
    """A run that is finished, made once: inside a test, in its floating-point type. No test writes into it."""
    if not shelf:
        kept = tmp_path_factory.mktemp("finished")
        data = shutil.copy(settings.data, kept)
        shelf["before"] = torch.get_rng_state()
        shelf["run"] = run(Settings(**settings.as_dict() | {"data": data, "out": str(kept / "runs")}))
        shelf["after"] = torch.get_rng_state()
    return shelf["run"]


@pytest.fixture
def copied(finished, tmp_path):
    """A directory of its own with all that the finished run has."""
    return RunDirectory(shutil.copytree(finished.directory.path, tmp_path / "copied"))


class TestRun:
    def test_writes_everything_once_and_whole(self, finished):
        path = finished.directory.path
        assert sorted(file.name for file in path.iterdir()) == [
            "checkpoint.pt",
            "config.yaml",
            "decoder.json",
            "evidence.nc",
            "figures",
            "metrics.csv",
            "posterior.nc",
            "report.html",
            "summary.json",
        ]
        pictures = {file.name for file in (path / "figures").iterdir()}
        names = ("bound", "gap", "khat", "prior", "reconstructions", "training", "traversal")
        assert pictures == {f"{n}.png" for n in names}
        with (path / "metrics.csv").open() as file:
            assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]

    def test_the_files_say_what_the_evidence_says(self, finished):
        result = finished
        with xr.open_dataset(result.directory.path / "evidence.nc", engine="h5netcdf") as saved:
            np.testing.assert_array_equal(saved["log_evidence"], result.evidence.log_evidence)
            assert saved.attrs["split"] == "test"
        summary = result.directory.read_summary()
        assert summary is not None
        assert summary["evidence"]["elbo"] == pytest.approx(float(result.evidence.elbo.mean()))
        assert summary["units"] == "nats"
        assert summary["training"]["epochs"] == 3
        assert summary["versions"]["torch"] == torch.__version__

    def test_the_evidence_is_that_of_the_trained_pair_on_the_test_data(self, finished, settings):
        result = finished
        data, pair = load_dataset(settings.data), make_pair(settings, load_dataset(settings.data))
        load_parameters(result.directory.checkpoint, pair.model, pair.guide, data.test)
        evidence = importance_evidence(pair.model, pair.guide, data.test, 40, seed=0)
        torch.testing.assert_close(evidence.log_evidence, result.evidence.log_evidence)

    def test_repeats_from_its_config(self, finished, undrawn):
        first = finished
        second = run(Settings(**yaml.safe_load(first.directory.config.read_text())))
        assert second.directory.path != first.directory.path
        torch.testing.assert_close(second.evidence.elbo, first.evidence.elbo, rtol=0, atol=0)

    def test_leaves_the_global_generator_as_it_was(self, finished, shelf):
        assert torch.equal(shelf["after"], shelf["before"])

    def test_max_eval_spreads_over_the_data(self, settings, counts, undrawn):
        assert len(run(Settings(**settings.as_dict() | {"max_eval": 2})).evidence.elbo) == 2
        assert evenly_spaced(torch.arange(10), 4).tolist() == [0, 3, 6, 9]
        assert evenly_spaced(torch.arange(3), None).tolist() == evenly_spaced(torch.arange(3), 5).tolist() == [0, 1, 2]

    def test_the_posterior_opens_in_arviz(self, finished):
        import arviz

        path = finished.directory.path
        opened = arviz.from_netcdf(path / "posterior.nc")
        assert all(group in opened for group in ("sample_stats", "log_likelihood", "prior", "observed_data"))
        assert opened.attrs["split"] == "test"
        posterior = opened["posterior"]
        assert posterior["z"].dims == ("chain", "draw", "datum", "z_dim_0")
        assert posterior["z"].shape == (4, 25, 6, 2)

    def test_training_raises_the_elbo(self, settings, undrawn):
        result = run(Settings(**settings.as_dict() | {"epochs": 30, "learning_rate": 1e-2}))
        with (result.directory.path / "metrics.csv").open() as file:
            elbos = [float(row["elbo"]) for row in csv.DictReader(file)]
        assert elbos[-1] > elbos[0] + 0.5

    def test_the_table_holds_the_numbers_in_nats(self, finished, capsys):
        import rich

        result = finished
        rich.print(result.table())
        shown = capsys.readouterr().out
        assert "nats" in shown
        for name in ("elbo", "log_evidence", "gap"):
            assert f"{result.summary['evidence'][name]:.2f}" in shown


@pytest.mark.usefixtures("undrawn")
class TestGoingOn:
    def test_ctrl_c_keeps_the_training_and_says_how_to_go_on(self, finished, settings, monkeypatch):
        epochs = []

        def interrupted(dataset_draw):
            def draw(self, rows):
                epochs.append(1)
                if len(epochs) == 6:
                    signal.raise_signal(signal.SIGINT)
                return dataset_draw(self, rows)

            return draw

        with monkeypatch.context() as patch:
            patch.setattr(Dataset, "draw", interrupted(Dataset.draw))
            with pytest.raises(KeyboardInterrupt, match=r"ppvae run --resume .*half"):
                run(Settings(**settings.as_dict() | {"name": "half"}))
        directory = RunDirectory.open(f"{settings.out}/half")
        assert directory.checkpoint.is_file()
        assert directory.read_summary() is None
        copy = RunDirectory(shutil.copytree(directory.path, directory.path.with_name("copy")))
        early = evaluate_run(copy, EvaluateOptions())
        (said,) = [remark for remark in early.summary["remarks"] if "the training is not finished" in remark]
        assert f"ppvae run --resume {copy.path}" in said
        result = run(directory.read_settings(), resume=directory)
        assert result.directory.path == directory.path
        torch.testing.assert_close(result.evidence.elbo, finished.evidence.elbo, rtol=0, atol=0)

    @pytest.mark.slow
    def test_a_run_killed_before_its_first_checkpoint_starts_anew(self, settings):
        whole = run(settings)
        directory = RunDirectory.create(settings)
        directory.write_settings(settings)
        result = run(directory.read_settings(), resume=directory)
        torch.testing.assert_close(result.evidence.elbo, whole.evidence.elbo, rtol=0, atol=0)

    def test_a_finished_run_is_only_evaluated_again(self, finished, copied):
        copied.summary.unlink()  # as after Ctrl-C in the evaluation
        assert load_run(copied).training["stopped"] == "finished"
        again = run(copied.read_settings(), resume=copied)
        assert again.summary["training"]["steps"] == finished.summary["training"]["steps"]
        torch.testing.assert_close(again.evidence.elbo, finished.evidence.elbo, rtol=0, atol=0)


@pytest.mark.usefixtures("undrawn")
class TestToATolerance:
    def test_is_what_a_run_ends_on_and_says_of_how_many_data_it_is_known(self, settings):
        settings = Settings(**settings.as_dict() | {"method": "auto", "pair": "LinearGaussian", "likelihood": None}
                            | {"pair_args": {"latent_dim": 2}, "likelihood_args": {}})  # fmt: skip
        result = run(settings)
        pair, data = load_pair_and_data(settings)
        load_parameters(result.directory.checkpoint, pair.model, pair.guide, data.data.test)
        exact = pair.log_evidence(data.data.test)
        assert ((result.evidence.log_evidence - exact).abs() < 0.1).all()
        assert result.summary["method"] == "adaptive"
        assert result.summary["tolerance"] == 0.1
        assert result.summary["evidence"]["settled_share"] == 1.0
        # Draws of the guide alone stand beside it: their K-sample bound is below.
        assert result.summary["draws"]["num_particles"] == 40
        assert result.summary["draws"]["log_evidence"] <= result.summary["evidence"]["log_evidence"] + 0.1
        assert f"known for {len(exact)} of {len(exact)} data" in result.summary["conclusion"]

    def test_takes_as_many_data_as_there_is_time_for_and_says_which(self, settings, monkeypatch):
        monkeypatch.setattr(estimate, "FIRST_PORTIONS", (2, 1))
        monkeypatch.setattr(estimate, "PORTION", 1)
        few = {"method": "auto", "tolerance": 0.5}
        whole = run(Settings(**settings.as_dict() | few | {"eval_minutes": None}))
        part = evaluate_run(whole.directory, EvaluateOptions(tolerance=0.5, eval_minutes=1e-6))
        with xr.open_dataset(whole.directory.path / "evidence.nc", engine="h5netcdf") as saved:
            rows = saved["row"].to_numpy()
        assert len(rows) == len(part.evidence.log_evidence) == 2 < len(whole.evidence.log_evidence)
        # A datum's number does not depend on how many there was time for.
        assert torch.equal(part.evidence.log_evidence, whole.evidence.log_evidence[torch.from_numpy(rows)])
        assert any("estimated for 2 of 6 test data" in remark for remark in part.summary["remarks"])

    @pytest.mark.parametrize("change", [{"tolerance": 0.0}, {"eval_minutes": -1.0}, {"method": "best"}])
    def test_refuses_what_cannot_be_used(self, settings, change):
        with pytest.raises(OptionError, match=next(iter(change))):
            run(Settings(**settings.as_dict() | change))


@pytest.mark.usefixtures("undrawn")
class TestEvaluate:
    @pytest.mark.parametrize("precision", ["32-true", "64-true"])
    def test_gives_the_same_numbers_again(self, settings, precision):
        torch.set_default_dtype(torch.float32)  # as on the command line
        whole = run(Settings(**settings.as_dict() | {"precision": precision}))
        again = evaluate_run(whole.directory, EvaluateOptions("importance"))
        torch.testing.assert_close(again.evidence.log_evidence, whole.evidence.log_evidence, rtol=0, atol=0)
        assert again.summary["training"] == whole.summary["training"]

    def test_takes_the_best_parameters_of_early_stopping(self, settings):
        whole = run(Settings(**settings.as_dict() | {"epochs": 40, "patience": 2, "learning_rate": 0.3}))
        assert whole.summary["training"]["stopped"] == "plateau"
        again = evaluate_run(whole.directory, EvaluateOptions("importance"))
        torch.testing.assert_close(again.evidence.elbo, whole.evidence.elbo, rtol=0, atol=0)

    @pytest.mark.slow
    def test_other_settings(self, settings):
        whole = run(settings)
        again = evaluate_run(
            whole.directory, EvaluateOptions("importance", num_particles=70, split="validation", seed=5)
        )
        assert again.evidence.num_particles == 70
        assert again.summary["split"] == "validation"
        assert again.summary["seed"] == 5
        assert not torch.equal(again.evidence.elbo, whole.evidence.elbo)
        with xr.open_dataset(whole.directory.path / "evidence.nc", engine="h5netcdf") as saved:
            assert saved.attrs["num_particles"] == 70
        assert whole.directory.read_settings().num_particles == 40

    @pytest.mark.slow
    def test_refuses_the_checkpoint_of_another_pair_and_changes_nothing(self, settings):
        one = run(settings)
        other = run(Settings(**settings.as_dict() | {"pair_args": {"latent_dim": 3, "hidden": [5]}}))
        before = {file: file.read_bytes() for file in one.directory.path.rglob("*.*") if file.is_file()}
        before[one.directory.checkpoint] = other.directory.checkpoint.read_bytes()
        one.directory.checkpoint.write_bytes(other.directory.checkpoint.read_bytes())
        with pytest.raises(CheckpointError, match="another pair"):
            evaluate_run(one.directory, EvaluateOptions())
        assert {file: file.read_bytes() for file in before} == before

    @pytest.mark.parametrize("options", [{"num_particles": 0}, {"seed": -1}, {"split": "train"}])
    def test_refuses_options_without_meaning(self, settings, options):
        directory = RunDirectory.create(settings)
        directory.write_settings(settings)
        with pytest.raises(OptionError, match=next(iter(options))):
            evaluate_run(directory, EvaluateOptions(**options))


class TestPreparation:
    def test_a_pair_that_breaks_the_contract_stops_before_a_run_directory_is_made(self, settings, tmp_path):
        file = tmp_path / "broken.py"
        file.write_text(
            "import pyro, torch, pyro.distributions as dist\n"
            "def model(x):\n"
            "    z = pyro.sample('z', dist.Normal(0., 1.))\n"
            "    with pyro.plate('data', len(x)):\n"
            "        pyro.sample('x', dist.Normal(z, 1.).expand([1, 6]).to_event(1), obs=x)\n"
            "def guide(x):\n"
            "    pyro.param('loc', torch.tensor(0.))\n"
        )
        with pytest.raises(PairError, match="breaks the contract"):
            run(Settings(pair=str(file), data=settings.data, out=settings.out))
        assert not list(tmp_path.glob("runs/*"))

    def test_findings_come_from_data_as_a_step_sees_them(self):
        grey = torch.rand(20, 4)
        data = Dataset("grey", grey, grey.round(), grey.round(), (2, 2), binarise=True)
        vae = VAE(4, latent_dim=2, hidden=(3,))
        assert check_pair(vae, RunData(data)) == []


class TestViews:
    def test_a_linear_pair_shows_its_means(self):
        pair = LinearGaussian(num_features=3, latent_dim=2).set_exact_guide()
        x = torch.randn(7, 3)
        seen = draw_samples(pair, x, seed=0)
        assert seen.traversal is None  # it has no decode
        z = torch.as_tensor(seen.posterior["z"].to_numpy()).flatten(0, 1)
        posterior = pair.posterior(x)
        # 42 normal averages of 100 draws, |error| < 5 standard errors: false alarm below 3e-5
        error = (z.mean(0) - posterior.mean) / (posterior.stddev / math.sqrt(len(z)))
        assert error.abs().max() < 5
        assert seen.prior is not None
        assert seen.prior.shape == (50, 3)

    def test_the_walk_goes_along_the_busiest_dimension_first(self):
        x = torch.randint(0, 5, (30, 6)).double()
        vae = VAE.for_data(x, Binomial(4), latent_dim=3, hidden=(4,))
        with torch.no_grad():
            vae.encoder[-1].weight[:3] = torch.tensor([[0.1], [10.0], [1.0]]) * torch.ones(3, 4)
        seen = draw_samples(vae, x, seed=0)
        assert seen.dimensions[0] == 1
        assert seen.traversal is not None
        z = torch.zeros(3)
        z[1] = -2.5
        torch.testing.assert_close(seen.traversal[0, 0], vae.decode(z).mean.detach())

    @pytest.mark.parametrize("name", ["hierarchy", "plated", "mixture", "mixture_in_guide", "nested", "gamma_poisson"])
    def test_any_pair_can_be_shown(self, name):
        pair = build(name)
        seen = draw_samples(pair, pair.x, seed=0)
        summed = {site for site in pair.summed if site in seen.posterior}
        assert not summed
        for site in seen.posterior.data_vars.values():
            assert site.shape[:3] == (4, 25, len(pair.x))


def test_a_model_that_cannot_be_drawn_from_is_shown_by_its_guide():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            emission = dist.Normal(z[..., None, None] + torch.tensor([-1.0, 1.0]), 1.0)
            pyro.sample("x", dist.DiscreteHMM(torch.zeros(2), torch.zeros(2, 2), emission), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    samples = draw_samples(types.SimpleNamespace(model=model, guide=guide), torch.randn(4, 5), seed=0)
    assert samples.reconstructions is None
    assert samples.prior is None
    assert samples.posterior["z"].shape == (4, 25, 4)


def test_a_class_that_the_model_sums_out_is_seen_as_the_posterior_has_it():
    """Two classes far apart: the reconstruction of a datum is the mean of its own class, not of one from the prior."""

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.ones(2)), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(20.0 * c.unsqueeze(-1) * torch.ones(3), 1.0).to_event(1), obs=x)

    pair = types.SimpleNamespace(model=model, guide=lambda x: None)
    x = torch.tensor([0.0, 20.0]).repeat(10).unsqueeze(-1).expand(20, 3)
    seen = draw_samples(pair, x, 0)
    assert torch.equal(seen.reconstructions, seen.data)


def test_one_particle_draws_its_curve_too():
    pair = VAE(num_features=3, latent_dim=1, hidden=(2,))
    evidence = importance_evidence(pair.model, pair.guide, torch.ones(4, 3), 1, seed=0)
    assert evidence_figures.bound_curve(evidence).axes[0].get_xlabel() == "particles per datum, K"
