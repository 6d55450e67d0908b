"""What an evaluation found, as ``summary.json`` holds it: numbers, remarks, and what to do next."""

from __future__ import annotations

from typing import Any

from ppvae.datasets import data_hash
from ppvae.inference import Evidence
from ppvae.storage import device_name, versions

from .estimate import Estimation, Measured
from .saved_run import UNFINISHED, SavedRun, saved_summary

# The sections that other commands add to a summary: a new evaluation leaves them there.
ADDED = ("certificate", "gap_attribution", "mended", "latent_units", "collapse", "calibration", "quality")
# A training with fewer steps has seldom converged.
FEW_STEPS = 1000


def summary_of(run: SavedRun, measured: Measured, how: Estimation, seconds: float, command: str) -> dict[str, Any]:
    """The content of ``summary.json``, with the sections that it had."""
    evidence = measured.evidence
    remarks = evidence.remarks()
    summary = {
        "pair": run.settings.pair,
        "data": run.data.data.name,
        "split": run.split,
        "unit": run.data.unit,
        "num_rows": len(run.x),
        "units": "nats",
        **({"columns": list(run.data.data.columns)} if run.data.data.columns else {}),
        **({"duplicates": run.data.data.duplicates} if any(run.data.data.duplicates.values()) else {}),
        "method": evidence.method,
        **({"tolerance": how.tolerance} if how.method == "auto" else {}),
        "evidence": evidence.summary(),
        "draws": _of_draws(measured.draws),
        "remarks": [
            *run.remarks("max_eval", run.settings.max_eval),
            *_unfinished(run),
            *_few_steps(run),
            *_part(run, measured, how),
            *remarks,
        ],
        "doubtful": bool(remarks),
        "training": {key: value for key, value in run.training.items() if key != "history"},
        "seconds": {"training": run.training["seconds"], "evaluation": seconds},
        "seed": run.settings.seed,
        "data_sha256": data_hash(run.data.data),
        "device": device_name(run.x.device),
        "versions": versions(),
        "command": command,
    }
    summary["conclusion"] = _conclusion(summary, str(run.directory.path))
    earlier = saved_summary(run.directory)
    return summary | {name: earlier[name] for name in ADDED if name in earlier}


def _conclusion(summary: dict[str, Any], run: str) -> str:
    """What was found, and what to do next, in a sentence."""
    numbers, adaptive = summary["evidence"], summary["method"] == "adaptive"
    n, known = numbers["num_data"], numbers["settled_share" if adaptive else "trusted_share"]
    of_all = "" if summary["unit"] == "data set" else f" for {round(known * n)} of {n} data"
    if known < 0.5:
        better = f"`ppvae posterior {run}` shows what q(z|x) misses"
        return f"log p(x) is known{of_all or ' badly'} only: " + (
            better if adaptive else f"`ppvae evaluate {run} --method auto` finds it to ± 0.1 nats"
        )
    if round(numbers["gap"], 2) == 0:
        return f"log p(x) is known{of_all}; the ELBO equals it to 0.01 nats"
    return f"log p(x) is known{of_all}; the ELBO is {numbers['gap']:.2f} nats below it: `ppvae gap {run}` says why"


def _of_draws(draws: Evidence) -> dict[str, float]:
    """What draws of the guide alone say: the K-sample bound of log p(x), and the tail of their weights."""
    found = draws.summary()
    kept = ("num_particles", "log_evidence", "pareto_k_mean", "pareto_k_share_above_0_7", "ess_mean")
    return {name: found[name] for name in kept}


def _part(run: SavedRun, measured: Measured, how: Estimation) -> list[str]:
    """That there was time for a part of the data only."""
    if measured.index is None or len(measured.index) == len(run.x):
        return []
    return [
        f"log p(x) was estimated for {len(measured.index)} of {len(run.x)} {run.split} data, drawn at random, as many "
        f"as {how.eval_minutes:g} minutes allow: `ppvae evaluate {run.directory.path}` takes all of them."
    ]


def _unfinished(run: SavedRun) -> list[str]:
    """That the training has not ended."""
    if run.training["stopped"] != UNFINISHED:
        return []
    return [
        f"the training is not finished: {run.training['epochs']} of at most {run.settings.epochs} epochs are done, and "
        f"these numbers are of the pair as it is now. `ppvae run --resume {run.directory.path}` goes on with it."
    ]


def _few_steps(run: SavedRun) -> list[str]:
    """That a training on all data at once is short: an epoch of it is few steps."""
    steps, epochs = run.training["steps"], run.training["epochs"]
    if run.data.data.divided or steps >= FEW_STEPS or not epochs:
        return []
    each = f"{steps // epochs} step{'s' * (steps > epochs)}"
    return [
        f"the training had {steps} gradient steps, since all data together make an epoch of {each}: if the ELBO still "
        "rises at its end (metrics.csv), it was too short; give more --epochs, such as 3000, or a larger "
        "--learning_rate, such as 0.01."
    ]
