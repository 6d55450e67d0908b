"""The command line, read off the signatures and docstrings of the functions that it calls.

Exit codes: 0 all is well; 1 `ppvae check` has findings; 2 something given cannot be used, said in one sentence on
stderr; 130 interrupted. What nobody foresaw keeps its traceback: it is a bug.

Torch takes seconds to import, so it is imported where a command needs it, and `ppvae --help` is quick.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

import ppvae
from ppvae.errors import OptionError, PpvaeError
from ppvae.experiments.runs.import_paths import known_likelihoods, known_pairs, near
from ppvae.storage import RunDirectory, Settings, all_runs

from .usage import usage_sentence

BAD_INPUT, FINDINGS, INTERRUPTED = 2, 1, 130


def run(settings: Settings, resume: str | None, command: str) -> int:
    """Train a pair, estimate log p(x) on the test data, show the gap, and write the run directory."""
    from ppvae.experiments.runs import main_job

    directory = None
    if resume is not None:
        directory = RunDirectory.open(resume)
        settings = directory.read_settings()
    return _show(main_job.run(settings, resume=directory, command=command, say=_say))


def evaluate(
    run: str,
    method: Literal["importance", "ais", "auto"] = "importance",
    num_particles: int | None = None,
    num_distributions: int = 200,
    tolerance: float = 0.1,
    max_eval: int | None = None,
    split: Literal["test", "validation"] = "test",
    seed: int | None = None,
    *,
    command: str = "",
) -> int:
    """Estimate log p(x) of an earlier run again, with other settings, in the same run directory.

    Args:
        run: the run directory.
        method: importance (draws of the guide), ais (annealed chains from the guide to the posterior), or auto (for
            each datum what brings it within the tolerance).
        num_particles: draws of the guide per datum, null takes those of the run; with ais chains per datum, null
            takes 32.
        num_distributions: of ais, from the guide to the posterior.
        tolerance: of auto, in nats.
        max_eval: evaluate on so many data only, evenly spread over all; null takes those of the run.
        split: the data to evaluate on.
        seed: of the draws; null takes that of the run.
        command: the command line, for the summary.
    """
    from ppvae.experiments.runs import main_job

    result = main_job.evaluate(
        RunDirectory.open(run),
        method=method,
        num_particles=num_particles,
        num_distributions=num_distributions,
        tolerance=tolerance,
        max_eval=max_eval,
        split=split,
        seed=seed,
        command=command,
    )
    return _show(result)


def certify(
    run: str,
    split: Literal["test", "validation", "model"] = "test",
    num_data: int = 100,
    confidence: float = 0.95,
    width: float = 0.1,
    start: Literal["guide", "prior"] = "guide",
    num_chains: int = 16,
    max_distributions: int = 2048,
    seed: int | None = None,
    *,
    command: str = "",
) -> int:
    """Say between which numbers log p(x) of an earlier run lies, and with what confidence.

    Args:
        run: the run directory.
        split: the data; of model, data drawn from the model, the upper bound is certain too.
        num_data: how many data, evenly spread over all.
        confidence: with which the bounds of the mean hold.
        width: of the mean's interval, in nats; no more is computed once it is reached.
        start: of the annealed chains.
        num_chains: per datum.
        max_distributions: the budget, between the start and the posterior.
        seed: of all draws; null takes that of the run.
        command: the command line, for the summary.
    """
    from ppvae.experiments.runs import sections as examine

    found = examine.certify_run(
        RunDirectory.open(run),
        split=split,
        num_data=num_data,
        confidence=confidence,
        width=width,
        start=start,
        num_chains=num_chains,
        max_distributions=max_distributions,
        seed=seed,
        command=command,
    )
    return _show(found)


def gap(
    run: str,
    split: Literal["test", "validation"] = "test",
    num_data: int = 100,
    tolerance: float = 0.1,
    steps: int = 2000,
    seed: int | None = None,
    *,
    command: str = "",
) -> int:
    """Say whose fault the gap of an earlier run is: the guide's family, or its amortisation.

    Args:
        run: the run directory.
        split: the data.
        num_data: how many data, evenly spread over all.
        tolerance: to which log p(x) is estimated, in nats.
        steps: the budget of a datum's local optimisation, in each family.
        seed: of all draws; null takes that of the run.
        command: the command line, for the summary.
    """
    from ppvae.experiments.runs import sections as examine

    found = examine.attribute_run(
        RunDirectory.open(run),
        split=split,
        num_data=num_data,
        tolerance=tolerance,
        steps=steps,
        seed=seed,
        command=command,
    )
    return _show(found)


def posterior(
    run: str,
    split: Literal["test", "validation"] = "test",
    num_data: int = 20,
    num_simulations: int = 1000,
    seed: int | None = None,
    *,
    command: str = "",
) -> int:
    """Say whether q(z|x) of an earlier run can be trusted as a posterior: collapse, calibration, quality.

    Args:
        run: the run directory.
        split: the data.
        num_data: data whose posterior is drawn from for reference, evenly spread over all.
        num_simulations: data that the model makes, for calibration.
        seed: of all draws; null takes that of the run.
        command: the command line, for the summary.
    """
    from ppvae.experiments.runs import posterior_run as trust

    found = trust.trust_run(
        RunDirectory.open(run),
        split=split,
        num_data=num_data,
        num_simulations=num_simulations,
        seed=seed,
        command=command,
    )
    return _show(found)


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

    found = compare(RunDirectory.open(a), RunDirectory.open(b))
    _print(found.table())
    for sentence in (found.conclusion(), *found.remarks()):
        _say(f"Note: {sentence}")
    print(found.write(out or found.file_name))
    return 0


def check(
    pair: str,
    data: str = "digits",
    pair_args: dict[str, Any] = {},  # noqa: B006
    data_dir: str | None = None,
    likelihood: str | None = None,
    likelihood_args: dict[str, Any] = {},  # noqa: B006
) -> int:
    """Say in which ways a pair breaks the contract; exit with 1 if there is one.

    Args:
        pair: the model/guide pair, as `ppvae run --pair` takes it.
        data: what to run it on, as `ppvae run --data` takes it.
        pair_args: arguments of the pair.
        data_dir: folder that already holds the files of mnist and binarized_mnist.
        likelihood: p(x|z), for a pair that takes one.
        likelihood_args: arguments of the likelihood.
    """
    from ppvae.datasets import load_dataset
    from ppvae.experiments.runs.make_pair import make_pair
    from ppvae.experiments.runs.preparation import check_pair

    settings = Settings(
        pair=pair, pair_args=pair_args, data=data, likelihood=likelihood, likelihood_args=likelihood_args
    )
    dataset = load_dataset(data, data_dir=data_dir)
    findings = check_pair(make_pair(settings, dataset), dataset)
    for finding in findings:
        print(finding)
    if not findings:
        print(f"no findings: {pair} keeps the contract of a pair on {dataset.name}.")
    return FINDINGS if findings else 0


def list_(out: str = "runs") -> int:
    """Show pairs, likelihoods, data sets, experiments and runs.

    Args:
        out: folder that holds the run directories.
    """
    from ppvae.datasets import DATASETS
    from ppvae.experiments.experiment import EXPERIMENTS, find

    likelihoods = {name: _first_sentence(c) for name, c in known_likelihoods().items()}
    pairs = {name: _first_sentence(c) for name, c in known_pairs().items()}
    questions = {name: _first_sentence(find(name)) for name in EXPERIMENTS}
    shown = {"pairs": pairs, "likelihoods": likelihoods, "data sets": DATASETS, "experiments": questions}
    for title, rows in shown.items():
        table = Table(title=title, title_justify="left", show_header=False, min_width=60)
        for name, what in rows.items():
            table.add_row(name, what)
        _print(table)
    table = Table("run", "pair", "data", "log p(x)", "gap", title=f"runs in {out}", title_justify="left")
    for directory in all_runs(out):
        table.add_row(directory.path.name, *_row(directory))
    _print(table if table.row_count else f"no runs in {out}")
    return 0


def experiment(name: str, config: Any, out: str = "runs") -> int:
    """Ask one of the experiments' questions; see `ppvae list` and `ppvae experiment NAME --help`."""
    from ppvae.experiments.experiment import find, folder_of

    folder = folder_of(out, name)  # before the work, so that a folder that cannot be written loses nothing
    result = find(name).run(config)
    result.write(folder, config)
    _print(result.table())
    for sentence in result.conclusions:
        print(sentence)
    print(folder)
    return 0


COMMANDS: dict[str, Callable[..., int]] = {
    "run": run,
    "evaluate": evaluate,
    "certify": certify,
    "gap": gap,
    "posterior": posterior,
    "report": report,
    "compare": compare,
    "check": check,
    "experiment": experiment,
    "list": list_,
}


# They note their command line in the summary.
NOTED = ("evaluate", "certify", "gap", "posterior")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the words after ``ppvae``; those of the process by default.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Threads that wait by spinning take the cores from each other on a busy machine. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return _dispatch(words)
    except PpvaeError as error:
        return _fail(str(error), BAD_INPUT)
    except argparse.ArgumentError as error:
        return _fail(usage_sentence(error, words), BAD_INPUT)
    except SystemExit as stop:  # --help, --version and --print_config
        return int(stop.code or 0)
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "interrupted.", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has left; nothing more is to be said, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(words: list[str]) -> int:
    if not words or (not words[0].startswith("-") and words[0] not in COMMANDS):
        what = f"there is no command {words[0]!r}{near(words[0], COMMANDS)}" if words else "a command is missing"
        raise OptionError(f"{what}: give one of {', '.join(COMMANDS)}, or --help.")
    if words[0] == "experiment" and len(words) > 1 and not words[1].startswith("-"):
        return _dispatch_experiment(words[1], words[2:])
    parsed = _parser().parse_args(words)
    name, line = parsed.subcommand, shlex.join(["ppvae", *words])
    options = parsed[name].as_dict()
    if name == "run":
        options.pop("config")
        others = [word for word in words[1:] if word.startswith("--") and word.partition("=")[0] != "--resume"]
        if options["resume"] is not None and others:
            raise OptionError("--resume takes every option from the run's config.yaml: give no other with it.")
        return run(resume=options.pop("resume"), settings=Settings(**options), command=line)
    if name in NOTED:
        return COMMANDS[name](**options, command=line)
    return COMMANDS[name](**options)


def _dispatch_experiment(name: str, words: list[str]) -> int:
    """An experiment has options of its own: the fields of its Config."""
    from ppvae.experiments.experiment import find

    module = find(name)
    parser = ArgumentParser(prog=f"ppvae experiment {name}", description=_first_sentence(module), exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file of options, as --print_config prints it.")
    parser.add_class_arguments(module.Config, as_group=False)
    parser.add_argument("--out", default="runs", help="folder in which the experiment's own is made.")
    options = parser.parse_args(words).as_dict()
    options.pop("config")
    return experiment(name, out=options.pop("out"), config=module.Config(**options))


def _parser() -> ArgumentParser:
    """The parser of all commands: `run` takes the fields of Settings, others the arguments of their functions."""
    description = (ppvae.__doc__ or "").partition("\n")[0]
    parser = ArgumentParser(prog="ppvae", description=description, version=ppvae.__version__, exit_on_error=False)
    commands = parser.add_subcommands()
    for name, function in COMMANDS.items():
        command = ArgumentParser(description=_first_sentence(function), exit_on_error=False)
        if name == "run":
            command.add_argument("--config", action="config", help="YAML file of options, as --print_config prints it.")
            command.add_class_arguments(Settings, as_group=False)
            command.add_argument("--resume", metavar="RUN", help="go on with an earlier run, by its directory.")
        elif name == "experiment":
            command.add_argument("name", help="of an experiment, whose own options follow it.")
        else:
            command.add_function_arguments(function, as_group=False, as_positional=True, skip={"command"})
        commands.add_subcommand(name, command, help=_first_sentence(function))
    return parser


def _show(result: Any) -> int:
    _print(result.table())
    for remark in result.summary["remarks"]:
        _say(f"Note: {remark}")
    print(result.directory.path)
    return 0


def _row(directory: RunDirectory) -> list[str]:
    """Pair, data and numbers of a run, for the list."""
    try:
        settings, summary = directory.read_settings(), directory.read_summary()
    except PpvaeError as error:
        return ["?", "?", str(error), ""]
    if summary is None:
        return [settings.pair, settings.data, "not evaluated", ""]
    numbers = summary["evidence"]
    values = [f"{numbers[k]:.2f} ± {numbers[k + '_standard_error']:.2f}" for k in ("log_evidence", "gap")]
    return [summary["pair"], summary["data"], *values]


def _first_sentence(thing: Any) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0].rstrip(".:")


def _print(what: Any) -> None:
    """A rich table; on a narrow terminal it folds, in a file or a pipe it keeps its width."""
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(what, highlight=False)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _fail(sentence: str, code: int) -> int:
    print(f"ppvae: {sentence}", file=sys.stderr)
    return code
