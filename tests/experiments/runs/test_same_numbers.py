"""The numbers of one run are the same on the terminal, on the page, in summary.json, and in the files for ArviZ.

The data are standardised, so that a density without its Jacobian would show: log p(x) of the two differs by 8 nats.
"""

import contextlib
import io
import json
import re

import numpy as np
import pytest
import xarray as xr

from ppvae.cli import main
from ppvae.storage import RunDirectory

RUN = "--data wide.csv --standardise true --likelihood Normal --epochs 4 --num_particles 60 --tolerance 0.5 --name one"
SMALL = "--pair_args.latent_dim 2 --pair_args.hidden [4] --accelerator cpu"
# The labels of the terminal's tables, with the keys of the page and of the summary.
EVIDENCE = {"log p(x)": "evidence.log_evidence", "ELBO": "evidence.elbo", "gap": "evidence.gap"}
CAUSES = {
    "ELBO": "gap_attribution.elbo",
    "log p(x)": "gap_attribution.log_evidence",
    "gap": "gap_attribution.total",
    "amortisation (better network)": "gap_attribution.amortisation",
    "family (richer guide)": "gap_attribution.family",
    "by full covariance": "gap_attribution.covariance",
    "by a flow, beyond that": "gap_attribution.flow",
    "the rest": "gap_attribution.rest",
}
QUALITY = {"KL(q ‖ p), the gap": "quality.kl_guide", "KL(p ‖ q)": "quality.kl_posterior"}
MENDED = {
    "gap before": "mended.gap_before",
    "gap after": "mended.gap_after",
    "ELBO, after − before": "mended.elbo_gain",
    "log p(x), after − before": "mended.log_evidence_difference",
}


def command(words):
    """What a command prints on stdout."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(words.split()) == 0
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a table of measurements whose columns have very different units."""
    folder = tmp_path_factory.mktemp("same")
    x = np.random.default_rng(0).normal(size=(60, 1)) + np.random.default_rng(1).normal(size=(60, 4))
    np.savetxt(folder / "wide.csv", x * [0.01, 20.0, 1.0, 3000.0], delimiter=",", header="a,b,c,d", comments="")
    return folder


@pytest.fixture(scope="module")
def printed(folder):
    """What `ppvae run` printed."""
    with contextlib.chdir(folder):
        return command(f"run {RUN} {SMALL}")


@pytest.fixture
def run(folder, printed):
    return RunDirectory(folder / "runs" / "one")


def numbers_of_table(text):
    """Label → the first number ± error of each row of a printed table, with true minus signs."""
    rows = [[cell.strip() for cell in line.strip("│┃").split("│")] for line in text.splitlines() if "│" in line]
    return {row[0]: row[1].replace("-", "−").replace("+", "") for row in rows if len(row) > 1 and "±" in row[1]}


def shown_on_page(run, key):
    """All texts that the page has for a number."""
    page = run.report.read_text(encoding="utf-8")
    found = re.findall(rf'data-key="{re.escape(key)}" data-value="[^"]*">([^<]*)<', page)
    assert found, key
    return {text.replace("\u202f", "") for text in found}


def value_of(run, key):
    value = json.loads(run.summary.read_text())
    for word in key.split("."):
        value = value[word]
    return value


def assert_means(run, file, names):
    """The means of the values by datum are the numbers of the summary."""
    values = xr.load_dataset(run.path / f"{file}.nc", engine="h5netcdf")
    for name in names:
        np.testing.assert_allclose(values[name].mean(), value_of(run, f"{file}.{name}"), rtol=1e-12)


def assert_same(run, text, keys):
    table = numbers_of_table(text)
    for label, key in keys.items():
        value, error = table[label].split(" ± ")
        assert {value} == shown_on_page(run, key), key
        assert error in shown_on_page(run, f"{key}_standard_error"), key
        for shown, name in ((value, key), (error, f"{key}_standard_error")):
            digits = len(shown.partition(".")[2])
            assert shown == f"{value_of(run, name):.{digits}f}".replace("-", "−")


def test_the_terminal_the_page_and_the_summary_have_the_numbers_of_the_run(run, printed):
    assert_same(run, printed, EVIDENCE)


def test_the_list_has_them_too(folder, run):
    with contextlib.chdir(folder):
        listed = command("list").replace("-", "−")
    for key in ("evidence.log_evidence", "evidence.gap"):
        (value,) = shown_on_page(run, key)
        assert value in listed


def test_the_files_have_them_by_datum(run):
    assert_means(run, "evidence", ("log_evidence", "elbo", "gap"))


def test_the_draws_for_arviz_have_the_same_elbo_and_the_data_of_the_file(run):
    """E_q[log w] = ELBO, from draws of their own: within five errors, a false alarm at a rate of 6e-7."""
    tree = xr.open_datatree(run.path / "posterior.nc", engine="h5netcdf")
    log_w = tree["sample_stats"]["log_weight"].to_numpy().reshape(-1, value_of(run, "evidence.num_data"))
    drawn = log_w.std(0) / np.sqrt(len(log_w))
    error = np.hypot(np.sqrt((drawn**2).mean() / log_w.shape[1]), value_of(run, "evidence.elbo_monte_carlo_error"))
    assert abs(log_w.mean() - value_of(run, "evidence.elbo")) < 5 * error
    observed = tree["observed_data"].to_dataset()["x"]
    table = np.loadtxt(run.path.parent.parent / "wide.csv", delimiter=",", skiprows=1)
    assert all(np.isclose(table, row, rtol=1e-5).all(1).any() for row in observed.to_numpy())


@pytest.mark.slow
class TestOtherCommands:
    def test_the_causes_of_the_gap(self, folder, run):
        with contextlib.chdir(folder):
            text = command("gap runs/one --num_data 4 --tolerance 0.5 --steps 20")
        assert_same(run, text, CAUSES)
        assert_means(run, "gap_attribution", ("elbo", "log_evidence", "total", "amortisation", "family"))
        assert max(len(line) for line in text.splitlines()) <= 80

    def test_the_posterior(self, folder, run):
        with contextlib.chdir(folder):
            text = command("posterior runs/one --num_data 3 --num_simulations 20")
        assert_same(run, text, QUALITY)
        tree = xr.open_datatree(run.path / "reference.nc", engine="h5netcdf")
        row = tree["posterior"]["datum"].to_numpy()
        evidence = xr.load_dataset(run.path / "evidence.nc", engine="h5netcdf")
        known = evidence["log_evidence"].to_numpy()[np.isin(evidence["row"].to_numpy(), row)]
        # E_p[log w] = log p(x) + KL(p ‖ q), and KL ≥ 0: densities without the Jacobian are 8 nats lower.
        log_w = tree["sample_stats"]["log_weight"].mean(("chain", "draw")).to_numpy()
        assert (log_w > known - 0.5).all()
        assert (log_w < known + 5).all()

    def test_another_evaluation(self, folder, run):
        with contextlib.chdir(folder):
            text = command("evaluate runs/one --method importance --num_particles 40")
        assert_same(run, text, EVIDENCE)
        assert value_of(run, "evidence.num_particles") == 40

    def test_the_mended_guide(self, folder, run):
        with contextlib.chdir(folder):
            text = command("mend runs/one --num_data 3 --tolerance 0.5 --steps 50 --attribution_steps 10")
        assert_same(run, text, MENDED)
