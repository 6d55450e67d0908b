"""The commands. The parameters of a function are the arguments of its command, its docstring is their help.

A parameter whose type is a dataclass stands for one option per field: the options of a command are written once, in the
class that the function doing the work takes. ``command``, the command line as it was typed, is noted in the summary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

from ppvae.experiments.runs.command_options import (
    AssessOptions,
    AttributeOptions,
    CertifyOptions,
    CheckOptions,
    CollapseOptions,
    EvaluateOptions,
    MendOptions,
)
from ppvae.storage import RunDirectory, Settings, all_runs

from . import catalogue
from .console import say, show, show_result
from .parser import parse_experiment

FINDINGS = 1  # the exit code of `ppvae check` where it has any


def run(settings: Settings, resume: str | None = None, *, command: str = "") -> int:
    """Train a pair, estimate log p(x) on the test data, show the gap, and write the run directory.

    Args:
        settings: of the run.
        resume: go on with an earlier run, by its directory.
        command: the command line, for the summary.
    """
    from ppvae.experiments.runs import main_job

    directory = None
    if resume is not None:
        directory = RunDirectory.open(resume)
        settings = directory.read_settings()
    return show_result(main_job.run(settings, resume=directory, command=command, say=say))


def evaluate(run: str, options: EvaluateOptions, *, command: str = "") -> int:
    """Estimate log p(x) of an earlier run again, with other settings, in the same run directory.

    Args:
        run: the run directory.
        options: of the evaluation.
        command: the command line, for the summary.
    """
    from ppvae.experiments.runs.evaluate_run import evaluate_run

    return show_result(evaluate_run(RunDirectory.open(run), options, command=command))


def certify(run: str, options: CertifyOptions, *, command: str = "") -> int:
    """Compute a lower and an upper bound of log p(x) of an earlier run, with their confidence.

    Args:
        run: the run directory.
        options: of the certificate.
        command: the command line, for the summary.
    """
    from ppvae.experiments.runs.certify_run import certify_run

    return show_result(certify_run(RunDirectory.open(run), options, command=command))


def gap(run: str, options: AttributeOptions, *, command: str = "") -> int:
    """Split the gap of an earlier run into its causes: the guide's family, and its amortisation.

    Args:
        run: the run directory.
        options: of the attribution.
        command: the command line, for the summary.
    """
    from ppvae.experiments.runs.attribute_run import attribute_run

    return show_result(attribute_run(RunDirectory.open(run), options, command=command))


def mend(run: str, options: MendOptions, *, command: str = "") -> int:
    """Find a better guide for an earlier run, keeping what gains on held-out data, and measure the gap again.

    Args:
        run: the run directory.
        options: of the mending.
        command: the command line, for the summary.
    """
    from ppvae.experiments.runs.mend_run import mend_run

    return show_result(mend_run(RunDirectory.open(run), options, command=command))


def collapse(run: str, options: CollapseOptions, *, command: str = "") -> int:
    """Say why latent units of an earlier run are unused, each cause by a short training that shows it.

    Args:
        run: the run directory.
        options: of the trainings.
        command: the command line, for the summary.
    """
    from ppvae.experiments.runs.collapse_run import collapse_run

    return show_result(collapse_run(RunDirectory.open(run), options, command=command))


def posterior(run: str, options: AssessOptions, *, command: str = "") -> int:
    """Assess q(z|x) of an earlier run as a posterior: collapse, calibration, quality.

    Args:
        run: the run directory.
        options: of the assessment.
        command: the command line, for the summary.
    """
    from ppvae.experiments.runs.assess_run import assess_run

    return show_result(assess_run(RunDirectory.open(run), options, command=command))


def report(run: str) -> int:
    """Write the page of a run, for readers without Python: report.html in its directory.

    Args:
        run: the run directory.
    """
    from ppvae.report import write_report

    print(write_report(RunDirectory.open(run)))
    return 0


def compare(a: str, b: str, out: str | None = None) -> int:
    """Compare two runs on the same data, datum by datum: a table here, and a page.

    Args:
        a: a run directory.
        b: another.
        out: the file of the page; null makes compare-A-B.html in this folder.
    """
    from ppvae.report import compare

    comparison = compare(RunDirectory.open(a), RunDirectory.open(b))
    show(comparison.table())
    for sentence in (comparison.conclusion(), *comparison.remarks()):
        say(f"Note: {sentence}")
    print(comparison.write(out or comparison.file_name))
    return 0


def check(pair: str, options: CheckOptions) -> int:
    """List in which ways a pair breaks the contract; exit with 1 if there is one.

    Args:
        pair: the model/guide pair, as `ppvae run --pair` takes it.
        options: the data, and how the pair is made.
    """
    from ppvae.experiments.runs.preparation import check_pair, description
    from ppvae.experiments.runs.run_data import load_pair_and_data

    settings = Settings(pair=pair, **vars(options)).check()
    programs, run_data = load_pair_and_data(settings)
    findings = check_pair(programs, run_data)
    for finding in findings:
        print(finding)
    if not findings:
        print(f"no findings: {pair} keeps the contract of a pair on {run_data.data.name}.")
    for line in description(findings.pair, run_data):
        print(line)
    return FINDINGS if findings else 0


def experiment(name: str, words: Sequence[str] = ()) -> int:
    """Run an experiment, one question each; see `ppvae list` and `ppvae experiment NAME --help`.

    Args:
        name: of an experiment, whose own options follow it.
        words: its own options.
    """
    from ppvae.experiments.experiment import find, folder_of

    module = find(name)
    config, out = parse_experiment(name, module, words)
    folder = folder_of(out, name)  # before the work, so that a folder that cannot be written loses nothing
    result = module.run(config)
    result.write(folder, config)
    show(result.table())
    for sentence in result.conclusions:
        print(sentence)
    print(folder)
    return 0


def list_(out: str = "runs") -> int:
    """Show pairs, likelihoods, data sets, experiments and runs.

    Args:
        out: folder that holds the run directories.
    """
    lists = {
        "pairs": catalogue.pairs(),
        "likelihoods": catalogue.likelihoods(),
        "data sets": catalogue.data_sets(),
        "experiments": catalogue.experiments(),
    }
    for title, rows in lists.items():
        table = Table(title=title, title_justify="left", show_header=False, min_width=60)
        for name, what in rows.items():
            table.add_row(name, what)
        show(table)
    table = Table(title=f"runs in {out}", title_justify="left")
    for column in ("run", "pair", "data"):
        table.add_column(column, overflow="fold")  # a name that is too long goes on in the next line, uncut
    for column in ("log p(x)", "gap"):
        table.add_column(column, no_wrap=True)
    for directory in all_runs(out):
        table.add_row(directory.path.name, *catalogue.numbers_of(directory))
    show(table if table.row_count else f"no runs in {out}")
    return 0


COMMANDS: dict[str, Callable[..., int]] = {
    "run": run,
    "evaluate": evaluate,
    "certify": certify,
    "gap": gap,
    "mend": mend,
    "collapse": collapse,
    "posterior": posterior,
    "report": report,
    "compare": compare,
    "check": check,
    "experiment": experiment,
    "list": list_,
}
