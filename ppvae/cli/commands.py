"""The commands. The parameters of a function are the arguments of its command, its docstring is their help.

A parameter whose type is a dataclass stands for one option per field: the options of a command are written once, in the
class that the function doing the work takes. ``command``, the command line as it was typed, is noted in the summary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ppvae.experiments.runs.command_options import (
    AssessOptions,
    AttributeOptions,
    CertifyOptions,
    CheckOptions,
    CollapseOptions,
    EvaluateOptions,
    MendOptions,
)
from ppvae.experiments.runs.planning_options import PlanOptions, SweepOptions
from ppvae.storage import RunDirectory, Settings

from .console import say, show, show_result
from .listing import list_
from .parser import parse_experiment

FINDINGS = 1  # the exit code of `ppvae check` where it has any


def run(settings: Settings, resume: str | None = None, *, command: str = "") -> int:
    """Train a pair, estimate log p(x) of the test data, and write a run directory with a page.

    Args:
        settings: of the run.
        resume: the directory of an earlier run to go on with.
        command: the command line, for the summary.
    """
    from ppvae.experiments.runs import main_job

    directory = None
    if resume is not None:
        directory = RunDirectory.open(resume)
        saved = directory.read_settings()
        settings = replace(saved, compute=settings.compute or saved.compute)
    result = main_job.run(settings, resume=directory, command=command, say=say)
    return show_result(result) if result is not None else 0


def evaluate(run: str, options: EvaluateOptions, *, command: str = "") -> int:
    """Estimate log p(x) of an earlier run again, with other settings.

    Args:
        run: the run directory.
        options: of the evaluation.
        command: the command line, for the summary.
    """
    from ppvae.experiments.runs.evaluate_run import evaluate_run

    return show_result(evaluate_run(RunDirectory.open(run), options, command=command))


def certify(run: str, options: CertifyOptions, *, command: str = "") -> int:
    """Compute a lower and an upper bound of log p(x), with their confidence.

    Args:
        run: the run directory.
        options: of the certificate.
        command: the command line, for the summary.
    """
    from ppvae.experiments.runs.certify_run import certify_run

    return show_result(certify_run(RunDirectory.open(run), options, command=command))


def gap(run: str, options: AttributeOptions, *, command: str = "") -> int:
    """Split the gap of a run into its causes: the guide's family and its amortisation.

    Args:
        run: the run directory.
        options: of the attribution.
        command: the command line, for the summary.
    """
    from ppvae.experiments.runs.attribute_run import attribute_run

    return show_result(attribute_run(RunDirectory.open(run), options, command=command))


def mend(run: str, options: MendOptions, *, command: str = "") -> int:
    """Improve the guide of a run, keep what gains on held-out data, and measure the gap again.

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
    """Test q(z|x) of a run as a posterior: collapse, calibration, reference draws.

    Args:
        run: the run directory.
        options: of the assessment.
        command: the command line, for the summary.
    """
    from ppvae.experiments.runs.assess_run import assess_run

    return show_result(assess_run(RunDirectory.open(run), options, command=command))


def plan(run: str, options: PlanOptions) -> int:
    """Say what an evaluation of many data would cost, from a pilot on some of an earlier run.

    Args:
        run: the run directory.
        options: the evaluation, and the pilot.
    """
    from ppvae.experiments.runs.plan_run import plan_run

    found = plan_run(RunDirectory.open(run), options)
    show(found.table())
    for remark in found.remarks(options.hours):
        print(remark)
    return 0


def sweep(config: str, options: SweepOptions) -> int:
    """Try options of `ppvae run`, and say which are better by log p(x) of the validation data, with the error.

    Args:
        config: YAML file of options of `ppvae run`, some of them with a range in place of a value, as in
            `learning_rate: {low: 0.0001, high: 0.01, log: true}`. Several processes may run the same command.
        options: of the sweep.
    """
    from ppvae.experiments.sweep import sweep as run_sweep

    found = run_sweep(config, options, say=say)
    show(found.table())
    say(found.summary["conclusion"])
    print(found.folder)
    return 0


def report(run: str) -> int:
    """Write the page of a run, report.html, again.

    Args:
        run: the run directory.
    """
    from ppvae.report import write_report

    print(write_report(RunDirectory.open(run)))
    return 0


def compare(a: str, b: str, out: str | None = None) -> int:
    """Compare two runs on the same data, datum by datum, in a table and on a page.

    Args:
        a: a run directory.
        b: another run directory.
        out: the file of the page. null makes compare-A-B.html in this folder.
    """
    from ppvae.report import compare

    comparison = compare(RunDirectory.open(a), RunDirectory.open(b))
    show(comparison.table())
    for sentence in (comparison.conclusion(), *comparison.remarks()):
        say(f"Note: {sentence}")
    print(comparison.write(out or comparison.file_name))
    return 0


def check(pair: str, options: CheckOptions) -> int:
    """List what is wrong with a pair; exit with 1 if anything is.

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
    """Run an experiment; `ppvae list` shows them, `ppvae experiment NAME --help` its options.

    Args:
        name: the name of an experiment; its own options follow.
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


COMMANDS: dict[str, Callable[..., int]] = {
    "run": run,
    "evaluate": evaluate,
    "certify": certify,
    "gap": gap,
    "mend": mend,
    "collapse": collapse,
    "posterior": posterior,
    "plan": plan,
    "sweep": sweep,
    "report": report,
    "compare": compare,
    "check": check,
    "experiment": experiment,
    "list": list_,
}
