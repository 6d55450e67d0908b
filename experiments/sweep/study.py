"""A sweep: trials by Optuna on one journal file, which any number of processes and machines may share.

Every process that runs the same command on the same folder takes trials until there are enough. Optuna proposes options
and gives up trials whose validation ELBO is below the median of the others at the same epoch; what a trial was worth is
log p(x) of the validation data, kept by datum, so that trials are compared by paired differences (:mod:`.ranking`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from rich.table import Table

from ppvae.errors import OptionError, PpvaeError, RunError, first_line
from ppvae.report import write_sweep_page
from ppvae.storage import write_json, write_text

from ..runs.planning_options import SweepOptions
from ..runs.preparation import Say
from .one_trial import measured_trial
from .ranking import MeasuredTrial, Ranking, ranked
from .search_space import SearchSpace

if TYPE_CHECKING:
    import optuna

# How a trial ended, in words, by the name of Optuna's state.
ENDS = {"COMPLETE": "measured", "PRUNED": "given up", "FAIL": "failed", "RUNNING": "not ended", "WAITING": "waiting"}
# Trials that are measured before any is given up, and epochs of a trial.
STARTED, FIRST_EPOCHS = 5, 5


@dataclass(frozen=True)
class Sweep:
    """The state of a sweep.

    Attributes:
        folder: where everything is.
        summary: the content of ``sweep.json``.
        ranking: of the measured trials; None where there is none.
    """

    folder: Path
    summary: dict[str, Any]
    ranking: Ranking | None

    def table(self) -> Table:
        """The best trials, to be printed by rich."""
        title = f"{self.summary['num_measured']} measured of {len(self.summary['trials'])} trials"
        table = Table(title=f"{title}: log p(x) of validation data, nats per datum")
        for name in ("trial", "log p(x)", "best − trial, interval"):
            table.add_column(name, justify="left" if name == "trial" else "right", no_wrap=True)
        for name in self.summary["swept"]:
            table.add_column(name, justify="right", overflow="fold")
        apart = {one.other: one for one in self.ranking.differences} if self.ranking else {}
        measured = [one for one in self.summary["trials"] if one["state"] == "measured"]
        for one in sorted(measured, key=lambda one: -one["log_evidence"])[:10]:
            d = apart.get(one["number"])
            shown = f"{d.mean:.2f} [{d.low:.2f}, {d.high:.2f}]" if d else "best"
            values = ["default" if one["default"] else _short(one["values"].get(n)) for n in self.summary["swept"]]
            mean = f"{one['log_evidence']:.2f} ± {one['log_evidence_standard_error']:.2f}"
            table.add_row(str(one["number"]), mean, shown, *values)
        return table


def sweep(config: str | Path, options: SweepOptions, *, say: Say = print) -> Sweep:
    """Take trials until there are enough, and write the page.

    Args:
        config: the YAML file of options and ranges.
        options: how many trials, and where.
        say: where a line is written for each trial.

    Raises:
        PpvaeError: the options cannot be used, or Optuna is not installed.
        KeyboardInterrupt: Ctrl-C; the trials that have ended are kept.
    """
    options.check()
    space = SearchSpace.read(config)
    folder = _folder(Path(config), options)
    study = _study(folder, space)
    seen = Counter(_is_done(trial) for trial in study.get_trials(deepcopy=False))[True]
    say(f"sweep directory: {folder} ({seen} of {options.trials} trials are done)")

    def objective(trial: optuna.Trial) -> float:
        return _objective(trial, space, folder, say)

    def enough(study: optuna.Study, _: Any) -> None:
        if sum(map(_is_done, study.get_trials(deepcopy=False))) >= options.trials:
            study.stop()

    try:
        if seen < options.trials:
            study.optimize(objective, callbacks=[enough], catch=(PpvaeError,))
    except KeyboardInterrupt:
        found = _written(study, space, folder)
        raise KeyboardInterrupt(
            f"interrupted; {found.summary['num_done']} of {options.trials} trials are done: the same command goes on."
        ) from None
    return _written(study, space, folder)


def _folder(config: Path, options: SweepOptions) -> Path:
    """The folder of the sweep, with a copy of its configuration; another process may have made it."""
    folder = Path(options.out).expanduser() / (options.name or config.stem)
    kept = folder / "sweep.yaml"
    try:
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        if not kept.exists():
            write_text(kept, config.read_text(encoding="utf-8"))
        same = yaml.safe_load(kept.read_text(encoding="utf-8")) == yaml.safe_load(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror}): give another --out.") from error
    if not same:
        raise OptionError(f"the sweep at {folder} has other options: give another --name, or remove it.")
    return folder


def _study(folder: Path, space: SearchSpace) -> optuna.Study:
    """Optuna's study on the journal of the folder; who makes it asks for the default options first."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise OptionError("ppvae sweep needs Optuna: `pip install 'ppvae[sweep]'`.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    try:
        study = optuna.create_study(storage=storage, study_name="sweep", direction="maximize")
        study.enqueue_trial({}, user_attrs={"default": True})
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name="sweep")
    # Processes that start at different moments propose different options.
    study.sampler = optuna.samplers.TPESampler(seed=space.settings({}).seed + len(study.get_trials(deepcopy=False)))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTED, n_warmup_steps=FIRST_EPOCHS)
    return study


def _objective(trial: optuna.Trial, space: SearchSpace, folder: Path, say: Say) -> float:
    import optuna

    default = bool(trial.user_attrs.get("default"))
    values = {} if default else {one.name: one.suggested(trial) for one in space.ranges}
    trial.set_user_attr("values", values)

    def report(elbo: float, epoch: int) -> None:
        trial.report(elbo, epoch)
        trial.set_user_attr("epochs", epoch)
        if not default and trial.should_prune():
            say(f"trial {trial.number}: given up after epoch {epoch}, validation ELBO {elbo:.2f}")
            raise optuna.TrialPruned

    try:
        found = measured_trial(space.settings(values), report, folder / "trials" / f"{trial.number:04d}.npz")
    except PpvaeError as error:
        trial.set_user_attr("error", first_line(error))
        say(f"trial {trial.number}: failed: {first_line(error)}")
        raise
    for name, value in found.items():
        trial.set_user_attr(name, value)
    shown = ", ".join(f"{name} {_short(value)}" for name, value in values.items()) or "the default"
    mean = f"{found['log_evidence']:.2f} ± {found['log_evidence_standard_error']:.2f}"
    say(f"trial {trial.number}: log p(x) {mean} nats per datum ({shown})")
    return float(found["log_evidence"])


def _is_done(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial counts: an interrupted one has failed without an error of its own."""
    return trial.state.name in ("COMPLETE", "PRUNED") or (trial.state.name == "FAIL" and "error" in trial.user_attrs)


def _written(study: optuna.Study, space: SearchSpace, folder: Path) -> Sweep:
    """The state of the sweep, with its summary, its best options and its page."""
    trials = [_row(trial) for trial in study.get_trials(deepcopy=False)]
    measured = [
        MeasuredTrial(t["number"], _values(folder, t["number"]), t["default"])
        for t in trials
        if t["state"] == "measured"
    ]
    ranking = ranked(measured) if measured else None
    summary: dict[str, Any] = {
        "swept": [one.name for one in space.ranges],
        "trials": trials,
        "num_measured": len(measured),
        "num_done": sum(_is_done(trial) for trial in study.get_trials(deepcopy=False)),
        "importances": _importances(study, [one.name for one in space.ranges]),
        "conclusion": ranking.conclusion() if ranking else "No trial was measured.",
        "differences": [],
        "options": space.settings({}).as_dict(),
    }
    if ranking is not None:
        summary |= {
            "best": ranking.best,
            "num_pairs": ranking.num_pairs,
            "num_data": ranking.num_data,
            "tied": ranking.tied,
            "differences": [{**asdict(one), "told_apart": one.told_apart} for one in ranking.differences],
        }
        values = next(t["values"] for t in trials if t["number"] == ranking.best)
        best = {name: value for name, value in space.settings(values).absolute().as_dict().items() if name != "name"}
        write_text(folder / "best.yaml", yaml.safe_dump(best, sort_keys=False))
    write_json(folder / "sweep.json", summary)
    write_sweep_page(folder, summary)
    return Sweep(folder, summary, ranking)


def _row(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    told = {name: value for name, value in trial.user_attrs.items() if name not in ("default", "values")}
    default = bool(trial.user_attrs.get("default"))
    state = ENDS[trial.state.name]
    if state == "failed" and "error" not in told:
        state = "interrupted"
    return {
        "number": trial.number,
        "state": state,
        "default": default,
        "values": trial.user_attrs.get("values", {}),
        **told,
    }


def _values(folder: Path, number: int) -> np.ndarray:
    file = folder / "trials" / f"{number:04d}.npz"
    try:
        with np.load(file) as found:
            return np.asarray(found["log_evidence"], dtype=float)
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{file} is missing or damaged: start the sweep anew with another --name.") from error


def _importances(study: optuna.Study, names: list[str]) -> dict[str, float]:
    """What share of the spread of log p(x) over trials each option accounts for, by Optuna's estimate."""
    import optuna

    try:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names)
    except (ValueError, RuntimeError):  # too few trials
        return {}
    return {name: float(share) for name, share in found.items() if np.isfinite(share)}


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
