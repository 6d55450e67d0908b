"""The page of a run: its numbers are the summary's, text of the run's files stays text, and it opens alone."""

import base64
import html
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
import yaml

from ppvae.cli import main
from ppvae.errors import RunError
from ppvae.report import compare, write_report
from ppvae.report.numbers import WRITTEN_BY, Numbers
from ppvae.report.page import rows
from ppvae.report.record import read_record
from ppvae.storage import RunDirectory, Settings

# One white pixel.
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mP8/x8AAwMCAO+ip1sAAAAASUVORK5CYII=")
HOSTILE = (
    "<script>document.title='taken'</script>\"'><img src=x onerror=alert(1)>{{ 733*839 }} \u202eevil\u202c \u05d0\u05d1"
)
SMALL = {"epochs": 2, "method": "importance", "num_particles": 30, "pair_args": {"latent_dim": 2, "hidden": [4]}}


def means(name, value, error):
    ends = {"": value, "_standard_error": error, "_monte_carlo_error": error / 10, "_data_error": error * 0.99}
    return {name + end: number for end, number in ends.items()}


WEIGHTS = {"num_particles": 12345, "pareto_k_mean": 0.9, "pareto_k_share_above_0_7": 0.654321, "ess_mean": 7.25}


def summary(**more):
    evidence = means("log_evidence", -90.123456789, 0.7) | means("elbo", -94.2, 0.8) | means("gap", 4.0765, 0.02)
    return {
        "pair": "VAE",
        "data": "digits",
        "split": "test",
        "method": "importance",
        "evidence": evidence | {"num_data": 3} | WEIGHTS,
        "draws": {"log_evidence": -91.5} | WEIGHTS,
        "remarks": ["first remark", "second remark"],
        "training": {"stopped": "plateau", "epochs": 30, "steps": 210, "seconds": 5.5}
        | {"last_elbo": -93.5, "last_validation_elbo": -95.25},
        "seconds": {"training": 5.5, "evaluation": 2.5},
        "seed": 3,
        "data_sha256": "abc",
        "device": "cpu",
        "versions": {"ppvae": "0.1.0", "torch": "2.13"},
        "command": "ppvae run",
        **more,
    }


PARTS = ("elbo", "log_evidence", "total", "amortisation", "family", "covariance", "flow", "rest")
SECTIONS = {
    "certificate": {"split": "test", "kind": "real", "confidence": 0.95, "num_data": 2, "mean_lower": -91.5}
    | {"mean_upper": -89.25, "mean_width": 2.25, "reached": False, "log_evidence": -90.5}
    | {"log_evidence_monte_carlo_error": 0.125, "remarks": ["a bound"], "command": "ppvae certify"},
    "gap_attribution": {"num_data": 2, "split": "test", "remarks": [], "command": "ppvae gap"}
    | {key: v for i, part in enumerate(PARTS) for key, v in means(part, 1.5 + i, 0.3).items()},
    "mended": {
        "verdict": "kept: flow",
        "gap_before": 3.5,
        "gap_after": 0.5,
        "steps": {"1 flow": {"gain": 3.0, "kept": True}},
    }
    | {"remarks": ["a step"], "command": "ppvae mend"},
    "collapse": {"verdict": "1 of 2 latent units are active", "growth": 1.5, "growth_standard_error": 0.25}
    | {"remarks": ["z[1]: a cause"], "command": "ppvae collapse"},
    "calibration": {"verdict": "bad on the data", "remarks": ["too narrow"], "power": 0.97, "ranks": [1, 2.5, None]},
    "quality": {"verdict": ["too narrow", "shifted"], "bias": 0.31, "bias_standard_error": 0.04, "z": {"a.b": 1.25}},
    "latent_units": {"remarks": ["1 of 2 has collapsed"], "active": 1, "calm": True},
}


def make(folder, content=None, figures=("bound", "training"), **settings):
    """A run directory as a run leaves it, with these contents."""
    folder.mkdir(parents=True)
    directory = RunDirectory(folder)
    directory.write_settings(Settings(**settings))
    if content is not None:
        directory.write_summary(content)
    (folder / "figures").mkdir()
    for name in figures:
        (folder / "figures" / f"{name}.png").write_bytes(PIXEL)
    return directory


def write_evidence(directory, seed, n=3):
    rng = np.random.default_rng(seed)
    names = ("log_evidence", "elbo", "gap", "standard_error", "elbo_standard_error", "gap_standard_error")
    values = {name: ("datum", rng.uniform(0.1, 1.0, n)) for name in names}
    directory.write_netcdf("evidence", xr.Dataset(values))
    return {name: array for name, (_, array) in values.items()}


def plane(**more):
    grid = np.arange(3 * 3 * 4, dtype=np.uint8)
    return {"site": "z", "axis": [-3.0, 0.0, 3.0], "event_shape": [2, 2], "low": 0.0, "high": 16.0} | {
        "grid": base64.b64encode(grid.tobytes()).decode(),
        "means": [[0.5, -1.0]],
        **more,
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the default pair with a two-dimensional latent, as `ppvae run` leaves it."""
    from ppvae.experiments.runs import main_job

    out = tmp_path_factory.mktemp("report")
    return main_job.run(Settings(**SMALL, out=str(out), name="two", accelerator="cpu"), say=lambda line: None).directory


class Reader(HTMLParser):
    """Collects elements, and the text in them."""

    def __init__(self, page):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.numbers: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        named = dict(attributes)
        if "data-key" in named:
            self.numbers.append((str(named["data-key"]), str(named["data-value"])))

    def handle_data(self, data):
        self.text.append(data)

    def found(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def leaves(content, path=""):
    """Every number of a summary, by its path."""
    if isinstance(content, dict):
        return {
            k: v for key, item in content.items() for k, v in leaves(item, f"{path}.{key}" if path else key).items()
        }
    if isinstance(content, list):
        return {k: v for i, item in enumerate(content) for k, v in leaves(item, f"{path}.{i}").items()}
    return {} if isinstance(content, str) else {path: content}


def assert_same_numbers(numbers, content):
    """What a page shows is what the summary holds, to the last bit; all means with their errors are there."""
    known = leaves(content)
    shown = {key: json.loads(value) for key, value in numbers}
    assert {key: known[key] for key in shown} == shown
    errors = {key.removesuffix("_standard_error") for key in shown if key.endswith("_standard_error")}
    assert {"evidence.log_evidence", "evidence.elbo", "evidence.gap"} <= errors <= set(shown)
    assert {key for key in known if key.startswith("evidence.")} <= set(shown)


class TestThePageOfARun:
    def test_is_written_by_the_run_and_by_the_command(self, trained, capsys):
        first = trained.report.read_text()
        trained.report.unlink()
        assert main(["report", str(trained.path)]) == 0
        assert capsys.readouterr().out.strip() == str(trained.report)
        assert trained.report.read_text() == first

    def test_shows_the_numbers_of_the_summary(self, trained):
        assert_same_numbers(Reader(trained.report.read_text()).numbers, trained.read_summary())

    def test_shows_every_number_of_every_section(self, tmp_path):
        content = summary(**SECTIONS)
        page = write_report(make(tmp_path / "run", content)).read_text()
        numbers = Reader(page).numbers
        assert_same_numbers(numbers, content)
        known, shown = leaves(content), {key for key, _ in numbers}
        for name in ("gap_attribution", "calibration", "quality", "latent_units"):
            unseen = {key for key in known if key.startswith(f"{name}.")} - shown
            assert not unseen
        assert "certificate.mean_lower" in shown
        assert "Beside reference draws: too narrow; shifted." in page
        for remark in ("first remark", "a bound", "too narrow", "1 of 2 has collapsed", "wider than asked"):
            assert remark in page

    def test_says_what_the_digits_of_its_numbers_say(self, tmp_path):
        page = write_report(make(tmp_path / "run", summary())).read_text()
        shown = dict(re.findall(r'data-key="([\w.]+)" data-value="[^"]*">([^<]*)<', page))
        assert shown["evidence.log_evidence"] == "−90.12"
        assert shown["evidence.gap"] == "4.077"  # its error is 0.020
        assert shown["evidence.num_particles"] == "12\u202f345"
        assert shown["evidence.pareto_k_share_above_0_7"] == "65.4\u202f%"

    def test_needs_nothing_but_itself_and_is_small_and_quick(self, trained):
        started = time.monotonic()
        page = write_report(trained).read_text()
        assert time.monotonic() - started < 2
        assert len(page) < 5_000_000
        reader = Reader(page)
        addresses = [a.get("src") or a.get("href") or "" for _, a in reader.tags if "src" in a or "href" in a]
        assert len(addresses) > 10
        assert all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)
        assert not reader.found("link")
        assert "default-src 'none'" in html.unescape(page)

    def test_every_figure_has_a_sentence_and_words_in_its_place(self, trained):
        page = trained.report.read_text()
        reader = Reader(page)
        pictures = list((trained.path / "figures").glob("*.png"))
        assert len(reader.found("img")) == len(reader.found("figcaption")) == len(pictures) >= 5
        assert all(len(str(img["alt"])) > 20 and int(str(img["width"])) > 100 for img in reader.found("img"))

    def test_the_contents_list_leads_to_every_section(self, trained):
        reader = Reader(trained.report.read_text())
        targets = [str(a["href"])[1:] for a in reader.found("a") if a.get("class") != "skip"]
        assert targets == [section["id"] for section in reader.found("section")]
        assert "plane" in targets

    def test_needs_neither_torch_nor_the_pair(self, trained):
        program = (
            "import sys\nfrom ppvae.cli import main\n"
            f"main(['report', {str(trained.path)!r}])\n"
            "print(sorted({'torch', 'pyro', 'arviz'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"


class TestTheVerdict:
    @pytest.mark.parametrize(
        ("share", "said"),
        [(0.0, "yes, once reweighted"), (0.05, "for most data"), (0.1001, "no"), (None, "no")],
    )
    def test_on_the_posterior_goes_by_k_hat(self, tmp_path, share, said):
        content = summary()
        content["draws"]["pareto_k_share_above_0_7"] = share
        page = write_report(make(tmp_path / "run", content)).read_text()
        claims = dict(re.findall(r'<dt>(.*?) <span class="chip">. (.*?)</span>', page))
        assert claims["Can q(z|x) be used as the posterior?"] == said
        assert claims["Is the estimate of log p(x) reliable?"] == {0.0: "yes", 0.05: "for most data"}.get(
            share, "only as a lower bound"
        )

    def test_does_not_read_the_guide_off_annealed_chains(self, tmp_path):
        content = summary(method="annealing", remarks=[])
        del content["draws"]  # as in the runs of earlier versions
        page = write_report(make(tmp_path / "run", content)).read_text()
        claims = dict(re.findall(r'<dt>(.*?) <span class="chip">. (.*?)</span>', page))
        assert claims["Can q(z|x) be used as the posterior?"] == "not judged"
        assert claims["Is the estimate of log p(x) reliable?"] == "yes"

    @pytest.mark.parametrize(
        ("settled", "trusted", "said"),
        [(1.0, 1.0, "yes"), (0.95, 1.0, "for most data"), (1.0, 0.92, "for most data"), (0.5, 1.0, "no")],
    )
    def test_on_an_estimate_to_a_tolerance_goes_by_the_data_that_reach_it(self, tmp_path, settled, trusted, said):
        content = summary(method="adaptive", tolerance=0.1)
        content["evidence"] |= {"settled_share": settled, "trusted_share": trusted}
        page = write_report(make(tmp_path / "run", content)).read_text()
        claims = dict(re.findall(r'<dt>(.*?) <span class="chip">. (.*?)</span>', page))
        assert claims["Is the estimate of log p(x) reliable?"] == said
        assert claims["Can q(z|x) be used as the posterior?"] == "no"  # by k-hat of its own draws

    @pytest.mark.parametrize(("doubtful", "word"), [(False, "yes"), (True, "not for every datum")])
    def test_a_remark_on_the_data_is_no_doubt_of_the_estimate(self, tmp_path, doubtful, word):
        content = summary(method="annealing", remarks=["3 of the 9 values of x.npy are missing."], doubtful=doubtful)
        page = write_report(make(tmp_path / "run", content)).read_text()
        claims = dict(re.findall(r'<dt>(.*?) <span class="chip">. (.*?)</span>', page))
        assert claims["Is the estimate of log p(x) reliable?"] == word

    @pytest.mark.parametrize(("amortisation", "word"), [(3.0, "encoder network"), (1.0, "family")])
    def test_names_the_larger_cause_of_the_gap(self, tmp_path, amortisation, word):
        section = SECTIONS["gap_attribution"] | {"amortisation": amortisation, "family": 2.0}
        page = write_report(make(tmp_path / "run", summary(gap_attribution=section))).read_text()
        claims = dict(re.findall(r'<dt>(.*?) <span class="chip">. (.*?)</span>', page))
        assert word in claims["What causes the gap?"]

    def test_a_familys_part_that_is_not_split_has_no_rows_of_its_parts(self, tmp_path):
        section = SECTIONS["gap_attribution"]
        section = {name: section[name] for name in section if not name.startswith(("covariance", "flow", "rest"))}
        page = write_report(make(tmp_path / "run", summary(gap_attribution=section))).read_text()
        assert "gap_attribution.family" in page
        assert "by full covariance" not in page

    def test_a_number_that_is_none_is_said(self, tmp_path):
        content = summary()
        content["evidence"]["log_evidence"] = math.nan
        page = write_report(make(tmp_path / "run", content)).read_text()
        assert 'data-key="evidence.log_evidence" data-value="null">not known<' in page
        assert "It is not a number" in page


class TestWhatIsMissing:
    def test_names_the_command_that_makes_it(self, tmp_path):
        directory = make(tmp_path / "a run", summary(), figures=())
        page = html.unescape(write_report(directory).read_text())
        run = f"'{directory.path}'"
        for command in ("certify", "gap", "mend", "collapse", "posterior", "evaluate"):
            assert f"<code>ppvae {command} {run}</code>" in page
        assert page.count("Not computed yet") == 5

    def test_a_run_that_was_not_evaluated_says_how_to_go_on(self, tmp_path):
        directory = make(tmp_path / "run", None, figures=("training",))
        page = write_report(directory).read_text()
        assert f"ppvae run --resume {directory.path}" in page
        assert len(Reader(page).found("img")) == 1
        assert not Reader(page).numbers

    def test_a_figure_that_nobody_explains_is_left_out(self, tmp_path):
        directory = make(tmp_path / "run", summary(), figures=("bound", "someone_elses"))
        assert len(Reader(write_report(directory).read_text()).found("img")) == 1

    def test_an_older_summary_without_a_method_is_read(self, tmp_path):
        content = summary()
        del content["method"]
        content["evidence"] |= content.pop("draws") | {"log_evidence": -90.1}
        assert "importance sampling" in write_report(make(tmp_path / "run", content)).read_text()


class TestAHostileRun:
    @pytest.fixture
    def page(self, tmp_path):
        # A folder's name can hold neither slash nor end of tag; everything else can.
        folder = tmp_path / HOSTILE.replace("/", "\u2215")
        sections = {
            name: {
                key: [HOSTILE] if key == "remarks" else HOSTILE if isinstance(v, str) else v
                for key, v in section.items()
            }
            for name, section in SECTIONS.items()
        }
        sections["quality"] |= {HOSTILE: 1.5, "verdict": HOSTILE}
        content = summary(**sections, remarks=[HOSTILE])
        content |= dict.fromkeys(("pair", "data", "split", "method", "device", "data_sha256", "command"), HOSTILE)
        content["training"]["stopped"] = HOSTILE
        content["versions"] = {HOSTILE: HOSTILE}
        directory = make(folder, content, pair=HOSTILE, data=HOSTILE, pair_args={HOSTILE: HOSTILE})
        (folder / "decoder.json").write_text(json.dumps(plane(site=HOSTILE)))
        return write_report(directory)

    def test_is_shown_as_text(self, page):
        text = page.read_text()
        reader = Reader(text)
        assert {tag for tag, attributes in reader.tags if any(name.startswith("on") for name in attributes)} == set()
        assert [a for a in reader.found("img") if not str(a["src"]).startswith("data:image/png")] == []
        assert len(reader.found("script")) == 2  # the grid's, the page's
        assert sum(HOSTILE in words for words in reader.text) >= 10
        assert "614987" not in "".join(words for words in reader.text if "evil" in words)

    def test_directions_of_text_stay_inside(self, page):
        # Whatever can hold text of the run's is set apart, so that right-to-left text moves nothing else.
        text = page.read_text()
        assert f"<h1><bdi>{html.escape(HOSTILE).replace('&#x27;', '&#39;').replace('&quot;', '&#34;')}</bdi>" in text
        assert '<li dir="auto">' in text

    def test_compared_with_itself(self, tmp_path):
        runs = []
        for name in ("[red]<script>1</script>".replace("/", "\u2215"), "b"):
            directory = make(tmp_path / name, summary(remarks=[HOSTILE]), pair=HOSTILE)
            write_evidence(directory, seed=1)
            runs.append(directory)
        found = compare(*runs)
        reader = Reader(found.write(tmp_path / "page.html").read_text())
        assert len(reader.found("script")) == 1
        assert "[red]" in str(found)


class TestDamagedFiles:
    @pytest.fixture
    def directory(self, tmp_path):
        directory = make(tmp_path / "run", summary(**SECTIONS))
        (directory.path / "decoder.json").write_text(json.dumps(plane()))
        return directory

    @pytest.mark.parametrize(
        ("file", "content", "said"),
        [
            ("summary.json", b'{"evidence": ', "summary.json is damaged"),
            ("summary.json", b"[1, 2]", "summary.json is damaged"),
            ("summary.json", b'{"pair": "VAE"}', "its evidence is no section"),
            ("config.yaml", b"pair: [", "config.yaml cannot be read"),
            ("figures/bound.png", PIXEL[:-9], "bound.png is damaged"),
            ("figures/training.png", b"<script>", "training.png is damaged"),
            ("figures/waterfall.png", b"", "`ppvae gap"),
            ("decoder.json", b"{}", "decoder.json is damaged"),
            ("decoder.json", b"\xff", "decoder.json is damaged"),
            ("decoder.json", json.dumps(plane(event_shape=[2, 3])).encode(), "decoder.json is damaged"),
            ("decoder.json", json.dumps(plane(grid="<script>")).encode(), "decoder.json is damaged"),
            ("decoder.json", json.dumps(plane(means=[["a", 1]])).encode(), "decoder.json is damaged"),
            ("decoder.json", json.dumps(plane(axis=[0.0, 1.0, math.nan])).encode(), "decoder.json is damaged"),
            ("decoder.json", json.dumps(plane(axis=[3.0, 0.0, -3.0])).encode(), "decoder.json is damaged"),
            ("decoder.json", json.dumps(plane(means=[[math.nan, 0.0]])).encode(), "decoder.json is damaged"),
        ],
    )
    def test_are_named_with_the_way_out(self, directory, capsys, file, content, said):
        (directory.path / file).write_bytes(content)
        assert main(["report", str(directory.path)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert re.search(r": `ppvae (evaluate|gap) .*` (writes|draws) it again|: restore it", error)
        assert not directory.report.exists()

    @pytest.mark.parametrize(
        ("section", "change", "said"),
        [
            ("evidence", {"log_evidence": "high"}, r"no number evidence.log_evidence.*ppvae evaluate"),
            ("evidence", {"gap_standard_error": [1]}, r"no number evidence.gap_standard_error.*ppvae evaluate"),
            ("certificate", {"mean_lower": "low"}, r"no number certificate.mean_lower.*ppvae certify"),
            ("gap_attribution", {"family": {}}, r"no number gap_attribution.family.*ppvae gap"),
            ("calibration", {"remarks": "one"}, r"the remarks of its calibration are no list.*ppvae posterior"),
        ],
    )
    def test_a_number_that_is_none_is_named(self, directory, section, change, said):
        content = directory.read_summary()
        content[section] |= change
        directory.write_summary(content)
        with pytest.raises(RunError, match=said):
            write_report(directory)

    def test_what_was_there_stays(self, directory):
        before = write_report(directory).read_text()
        (directory.path / "summary.json").write_text("{")
        with pytest.raises(RunError):
            write_report(directory)
        assert directory.report.read_text() == before

    def test_no_run_directory(self, tmp_path, capsys):
        assert main(["report", str(tmp_path)]) == 2
        assert "is not a run directory" in capsys.readouterr().err


class TestCompare:
    @pytest.fixture
    def runs(self, tmp_path):
        runs = [make(tmp_path / name, summary(remarks=[f"{name}'s"]), epochs=i + 1) for i, name in enumerate("ab")]
        return runs, [write_evidence(directory, seed) for seed, directory in enumerate(runs)]

    def test_the_difference_is_paired_by_datum(self, runs):
        (a, b), (at_a, at_b) = runs
        found = compare(a, b)
        for name, error in (("log_evidence", "standard_error"), ("gap", "gap_standard_error")):
            d = [at_b[name][i] - at_a[name][i] for i in range(3)]
            mean = sum(d) / 3
            variance = sum((x - mean) ** 2 for x in d) / 2
            assert found.difference[name] == pytest.approx(mean)
            assert found.difference[f"{name}_standard_error"] == pytest.approx(math.sqrt(variance / 3))
            assert found.difference[f"{name}_share_higher"] == sum(x > 0 for x in d) / 3
            squares = sum(at_a[error][i] ** 2 + at_b[error][i] ** 2 for i in range(3))
            assert found.difference[f"{name}_monte_carlo_error"] == pytest.approx(math.sqrt(squares) / 3)

    def test_a_run_with_itself_differs_by_nothing(self, runs):
        (a, _), _ = runs
        found = compare(a, a)
        assert found.difference["elbo"] == found.difference["elbo_standard_error"] == 0
        assert "cannot be told from zero" in found.conclusion()

    def test_the_better_one_is_named(self, runs):
        (a, b), (at_a, _) = runs
        shifted = {name: ("datum", values + 5.0 * (name == "log_evidence")) for name, values in at_a.items()}
        shifted["log_evidence"][1][0] += 0.001
        b.write_netcdf("evidence", xr.Dataset(shifted))
        assert compare(a, b).conclusion().startswith("By log p(x), b is better, by")
        found = compare(b, a)
        assert found.conclusion().startswith("By log p(x), a is better, by")
        assert repr(found).endswith(found.conclusion())
        assert len(repr(found).splitlines()) < 12
        assert "By log p(x)" in found._repr_html_()

    def test_data_without_finite_values_are_left_out_and_said(self, runs):
        (a, b), (at_a, at_b) = runs
        at_b["log_evidence"][1] = -math.inf
        b.write_netcdf("evidence", xr.Dataset({name: ("datum", values) for name, values in at_b.items()}))
        found = compare(a, b)
        d = (at_b["elbo"] - at_a["elbo"])[[0, 2]]
        assert found.difference["elbo"] == pytest.approx(d.mean())
        assert any("1 data are left out" in remark for remark in found.remarks())
        assert found.write(a.path / "page.html").exists()

    def test_the_command_prints_a_table_and_writes_a_page(self, runs, tmp_path, monkeypatch, capsys):
        (a, b), _ = runs
        monkeypatch.chdir(tmp_path)
        assert main(["compare", str(a.path), str(b.path)]) == 0
        said = capsys.readouterr()
        assert said.out.splitlines()[-1] == "compare-a-b.html"
        assert "a's" in said.err
        assert "b's" in said.err
        page = (tmp_path / "compare-a-b.html").read_text()
        content = {"a": a.read_summary(), "b": b.read_summary(), "difference": compare(a, b).difference}
        numbers = {key: json.loads(value) for key, value in Reader(page).numbers}
        known = leaves(content)
        assert {key: known[key] for key in numbers} == numbers
        assert {"a.evidence.gap", "b.evidence.gap", "difference.gap", "difference.gap_standard_error"} <= set(numbers)
        assert numbers["a.evidence.gap"] == a.read_summary()["evidence"]["gap"]
        table = re.search(r"<table class=.plain.*?</table>", page, flags=re.DOTALL).group()
        assert re.findall(r'<th scope="row">(\w+)', table) == ["epochs"]
        assert main(["compare", str(a.path), str(b.path), "--out", str(tmp_path / "x.html")]) == 0
        assert (tmp_path / "x.html").exists()

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"data_sha256": "def"}, "other data"),
            ({"split": "validation"}, "another part of the data"),
        ],
    )
    def test_other_data_are_refused(self, runs, change, said, capsys):
        (a, b), _ = runs
        b.write_summary(b.read_summary() | change)
        assert main(["compare", str(a.path), str(b.path)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1

    def test_another_number_of_data_is_refused(self, runs):
        (a, b), _ = runs
        write_evidence(b, 0, n=4)
        with pytest.raises(RunError, match=r"3 and 4 data: `ppvae evaluate` one with the other's --max_eval"):
            compare(a, b)

    def test_what_is_missing_or_damaged_is_said(self, runs, tmp_path):
        (a, b), _ = runs
        (b.path / "evidence.nc").write_bytes(b"no netCDF")
        with pytest.raises(RunError, match=r"evidence.nc is missing or damaged: `ppvae evaluate"):
            compare(a, b)
        with pytest.raises(RunError, match="was not evaluated yet"):
            compare(a, make(tmp_path / "new", None))
        with pytest.raises(RunError, match="could not be written"):
            compare(a, a).write(tmp_path / "nowhere" / "page.html")

    def test_closer_looks_are_paired_too(self, runs, tmp_path):
        (a, b), _ = runs
        rng = np.random.default_rng(3)
        names = ("kl_guide", "kl_posterior", "total_variation")
        values = {run: {name: rng.uniform(1, 2, 4) for name in names} for run in "ab"}
        values["b"]["kl_guide"][2] = math.nan  # no reference there
        for letter, run in (("a", a), ("b", b)):
            run.write_summary(
                run.read_summary() | {"quality": {"verdict": f"{letter}'s", "split": "test", "num_data": 4}}
            )
            errors = {f"{name}_standard_error": np.full(4, 0.1) for name in names}
            dataset = {name: ("datum", value) for name, value in (values[letter] | errors).items()}
            run.write_netcdf("quality", xr.Dataset(dataset))
            (run.path / "figures" / "quality.png").write_bytes(PIXEL)
        found = compare(a, b)
        d = (values["b"]["kl_posterior"] - values["a"]["kl_posterior"])[[0, 1, 3]]
        assert found.sections["quality"]["kl_posterior"] == pytest.approx(d.mean())
        assert found.sections["quality"]["num_left_out"] == 1
        page = Reader(found.write(tmp_path / "page.html").read_text())
        shown = {key: json.loads(value) for key, value in page.numbers if key.startswith("quality.")}
        assert shown == {key: leaves(found.sections)[key] for key in shown}
        assert {f"quality.{name}{end}" for name in names for end in ("", "_standard_error")} < set(shown)
        text = " ".join("".join(page.text).split())
        assert "a: a's" in text
        assert "without 1 for which one of the runs has no such number" in text
        assert text.count("not known yet; ppvae gap") == 2
        assert sum("guide's width" in str(image["alt"]) for image in page.found("img")) == 2

    @pytest.mark.parametrize("change", [{"split": "validation"}, {"num_data": 5}])
    def test_looks_at_other_data_are_not_paired(self, runs, change):
        (a, b), _ = runs
        section = {"split": "test", "num_data": 4}
        a.write_summary(a.read_summary() | {"quality": section})
        b.write_summary(b.read_summary() | {"quality": section | change})
        assert compare(a, b).sections == {}

    def test_a_look_whose_file_is_gone_is_named(self, runs):
        (a, b), _ = runs
        for run in (a, b):
            run.write_summary(run.read_summary() | {"gap_attribution": {"split": "test", "num_data": 4}})
        with pytest.raises(RunError, match=r"gap_attribution.nc is missing or damaged: `ppvae gap"):
            compare(a, b)

    def test_other_methods_are_said(self, runs):
        (a, b), _ = runs
        b.write_summary(b.read_summary() | {"method": "annealing"})
        assert any("in two ways" in remark for remark in compare(a, b).remarks())


class TestNumbers:
    def test_a_key_may_hold_dots(self):
        assert Numbers({"a": {"b.c": {"d": 1}}}).value("a.b.c.d") == 1

    def test_errors_stand_with_their_numbers(self):
        section = {"kl": 1.0, "kl_standard_error": 0.5, "verdict": "good", "parts": {"x": True}, "names": ["a"]}
        found = [("kl", ["s.kl"], "s.kl_standard_error"), ("parts: x", ["s.parts.x"], None)]
        assert rows(section, "s") == found


class TestTheLatentPlane:
    def test_the_grid_is_what_the_pair_decodes(self, trained):
        import torch

        from ppvae.experiments.runs.saved_run import load_run

        kept = read_record(trained).plane
        axis, n = kept["axis"], len(kept["axis"])
        grid = np.frombuffer(base64.b64decode(kept["grid"]), dtype=np.uint8).reshape(n, n, 64)
        pair = load_run(trained).pair
        for row, column in ((0, n - 1), (3, 5), (n - 1, 0)):
            z = torch.tensor([axis[column], axis[row]], dtype=torch.float32)
            mean = pair.decode(z).mean.detach().numpy()
            step = (kept["high"] - kept["low"]) / 255
            np.testing.assert_allclose(kept["low"] + grid[row, column] * step, mean, atol=0.51 * step)
        assert axis[0] <= -3
        assert axis[n // 2] == 0
        assert 0 < len(kept["means"]) <= 100

    def test_there_is_none_for_other_latents(self, tmp_path, undrawn):
        from ppvae.experiments.runs import main_job

        settings = Settings(**(SMALL | {"pair_args": {"latent_dim": 3, "hidden": [4]}}), out=str(tmp_path))
        directory = main_job.run(settings, say=lambda line: None).directory
        assert not directory.decoder.exists()
        assert 'id="plane"' not in directory.report.read_text()


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROBE = """
addEventListener("load", () => {
  const d = document.documentElement, pad = document.getElementById("pad"), seen = document.getElementById("seen");
  const told = { width: innerWidth, scroll: d.scrollWidth, title: document.title, numbers: [], pictures: 0 };
  for (const e of document.querySelectorAll("[data-key]")) told.numbers.push([e.dataset.key, e.dataset.value]);
  for (const e of document.images) told.pictures += e.naturalWidth > 0;
  told.dark = getComputedStyle(document.body).backgroundColor;
  if (pad) {
    const place = document.getElementById("place"), shown = () => seen.toDataURL();
    const press = (key) => pad.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
    told.start = place.textContent;
    told.first = shown();
    press("ArrowRight"); press("ArrowUp");
    told.keys = place.textContent;
    const slider = document.getElementById("z0");
    slider.value = slider.max; slider.dispatchEvent(new Event("input"));
    told.slider = place.textContent;
    told.moved = shown() !== told.first;
    pad.setPointerCapture = () => {}; pad.hasPointerCapture = () => true;
    const box = pad.getBoundingClientRect();
    const at = { clientX: box.left + box.width / 4, clientY: box.top + box.height / 4, pointerId: 1 };
    pad.dispatchEvent(new PointerEvent("pointerdown", at)); pad.dispatchEvent(new PointerEvent("pointermove", at));
    told.pointer = place.textContent;
  }
  (parent === window ? window : parent).postMessage(JSON.stringify(told), "*");
});
"""
RECEIVER = (
    '<script>addEventListener("message", (e) => { const p = document.createElement("pre"); p.id = "told";'
    " p.textContent = e.data; document.body.append(p); });</script>"
)


def browse(path, *, width, dark=False):
    """What a browser makes of a page at a width, and what it complains of."""
    text = path.read_text()
    plain = re.sub(r"<meta http-equiv=.Content-Security-Policy.*?>", "", text)  # so that it can be asked
    probed = path.with_name("probed.html")
    probed.write_text(plain.replace("</body>", f"<script>{PROBE}</script></body>"))
    # A browser's window is never as narrow as a phone; a frame is.
    frame = path.with_name("frame.html")
    style = f"width:{width}px;height:900px;border:0"
    frame.write_text(f"<!DOCTYPE html><body>{RECEIVER}<iframe src='probed.html' style='{style}'></iframe>")
    framed, _ = _chromium(frame, dark)
    told = json.loads(html.unescape(re.search(r'<pre id="told">(.*?)</pre>', framed, flags=re.DOTALL).group(1)))
    return told, _chromium(path, dark)[1]


def _chromium(path, dark):
    words = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    words += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--user-data-dir={path.parent / 'profile'}"]
    words += ["--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom", path.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=os.environ)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
class TestInABrowser:
    @pytest.fixture
    def page(self, trained, tmp_path):
        """The page of a run with every section, beside no other file."""
        content = trained.read_summary() | SECTIONS
        copy = RunDirectory(tmp_path / "two")
        shutil.copytree(trained.path, copy.path)
        copy.write_summary(content)
        return shutil.copy(write_report(copy), tmp_path / "page.html"), content

    @pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, False), (1280, True)])
    def test_numbers_are_the_summarys_nothing_overflows_nobody_complains(self, page, width, dark):
        path, content = page
        told, complaints = browse(path, width=width, dark=dark)
        assert complaints == []
        assert told["width"] == width
        assert told["scroll"] <= width
        assert_same_numbers([(key, value) for key, value in told["numbers"]], content)
        assert told["pictures"] >= 5
        assert (told["dark"] == "rgb(21, 23, 26)") == dark

    def test_the_latent_plane_answers_to_keys_sliders_and_pointers(self, page):
        told, _ = browse(page[0], width=1280)
        end = read_record(RunDirectory(page[0].parent / "two")).plane["axis"][-1]
        step = f"{end / 20:.2f}"
        assert told["start"] == "z = (0.00, 0.00)"
        assert told["keys"] == f"z = ({step}, {step})"
        assert told["slider"] == f"z = ({end:.2f}, {step})"
        assert told["moved"]
        assert told["pointer"] == f"z = (−{end / 2:.2f}, {end / 2:.2f})"

    def test_a_hostile_run_takes_nothing_over(self, tmp_path):
        content = summary(**SECTIONS, remarks=[HOSTILE], command=HOSTILE, device=HOSTILE)
        directory = make(tmp_path / "run", content, pair=HOSTILE, data=HOSTILE * 5, pair_args={HOSTILE: HOSTILE})
        (directory.path / "decoder.json").write_text(json.dumps(plane(site=HOSTILE)))
        told, complaints = browse(shutil.copy(write_report(directory), tmp_path / "page.html"), width=390)
        assert complaints == []
        assert told["title"].startswith("<script>")
        assert told["scroll"] <= 390

    def test_two_runs_side_by_side(self, tmp_path):
        runs = [make(tmp_path / name, summary()) for name in ("a", "b" * 60)]
        for seed, directory in enumerate(runs):
            write_evidence(directory, seed)
        told, complaints = browse(compare(*runs).write(tmp_path / "page.html"), width=390)
        assert complaints == []
        assert told["scroll"] <= 390
        assert told["pictures"] == 5


PAGES = ("digits", "latent_plane", "binarized_mnist")


@pytest.mark.parametrize("name", PAGES)
class TestTheExamplePages:
    """Those that the README leads to: of real runs, with every section."""

    @pytest.fixture
    def folder(self, repository, name):
        return repository / "docs" / "report" / name

    def test_the_page_is_that_of_its_run(self, repository, folder, name):
        page = folder / "report.html"
        assert page.stat().st_size < 1_500_000
        content = json.loads((folder / "summary.json").read_text())
        reader = Reader(page.read_text())
        assert_same_numbers(reader.numbers, content)
        sections = set(WRITTEN_BY) - {"mended", "collapse"}  # these runs have the guide that they came with
        assert sections < set(content)
        assert {f"{section}." for section in sections} <= {key.partition(".")[0] + "." for key, _ in reader.numbers}
        assert "not known yet" not in " ".join(reader.text)
        assert f"docs/report/{name}/report.html" in (repository / "README.md").read_text()
        assert yaml.safe_load((folder / "config.yaml").read_text())["data"] in {"digits", name}

    @pytest.mark.slow
    @pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
    @pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
    def test_in_a_browser(self, folder, tmp_path, width, dark):
        told, complaints = browse(shutil.copy(folder / "report.html", tmp_path / "page.html"), width=width, dark=dark)
        assert complaints == []
        assert told["scroll"] <= told["width"] == width
        assert_same_numbers(told["numbers"], json.loads((folder / "summary.json").read_text()))
        assert told["pictures"] >= 15
