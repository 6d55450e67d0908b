"""Two-sided bounds of log p(x) of an earlier run: `certificate.nc`, a figure, and a section of its summary."""

from __future__ import annotations

import math
import time
from typing import Any

from ppvae.inference import Certificate, Sampling, certify
from ppvae.storage import RunDirectory

from ..figures.waterfall import certificate_intervals
from .command_options import CertifyOptions
from .own_units import log_jacobian
from .saved_run import load_run
from .section import Section, check_evaluated, write_section
from .sharded import computed

# The value of `split` for which data are drawn from the model.
MODEL = "model"


def certify_run(directory: RunDirectory, options: CertifyOptions, *, command: str = "") -> Section:
    """Bound log p(x) from both sides, on the data of an earlier run or on data drawn from its model.

    Args:
        directory: of the run.
        options: which data, how narrow, with which confidence.
        command: the command line, for the summary.

    Raises:
        PpvaeError: the run, its data or its pair cannot be had, or the pair cannot be certified.
    """
    options.check()
    check_evaluated(directory)
    simulated = options.split == MODEL
    run = load_run(directory, split=None if simulated else options.split, max_eval=options.num_data, seed=options.seed)
    started = time.monotonic()
    certificate: Certificate = computed(
        run,
        options,
        certify,
        run.batch,
        like=simulated,
        confidence=options.confidence,
        width=options.width,
        sampling=Sampling(
            start=options.start, num_chains=options.num_chains, max_distributions=options.max_distributions
        ),
    )
    certificate = certificate.shifted(log_jacobian(run.data, run.x if run.data.unit == "data set" else certificate.x))
    split = MODEL if simulated else run.split
    section = {"split": split, "unit": run.data.unit, **certificate.summary(), "seed": run.settings.seed}
    remarks = [*([] if simulated else run.remarks("num_data", options.num_data)), *certificate.remarks()]
    section |= {"seconds": time.monotonic() - started, "remarks": remarks, "command": command}
    figures = {"certificate": certificate_intervals(certificate)}
    write_section(run, "certificate", certificate.to_dataset(), section, figures)
    title = f"log p(x){_over(certificate, section)}: {certificate.kind} certificate"
    return Section(directory, title, _rows(certificate, section), section)


def _over(certificate: Certificate, section: dict[str, Any]) -> str:
    """The data that the bounds are of, in words."""
    simulated, n = section["split"] == MODEL, len(certificate.lower)
    if section["unit"] == "data set":
        return f", mean over {n} simulated data sets" if simulated else " of the data set"
    return f", mean over {n} {'simulated' if simulated else section['split']} data"


def _rows(certificate: Certificate, section: dict[str, Any]) -> list[tuple[str, str, str]]:
    of_the_mean = "" if len(certificate.lower) == 1 else " of the mean"
    certified = f"certified with {certificate.confidence:.0%}"
    reached = "reached" if certificate.reached else f"{section['width']} was asked"
    if math.isinf(certificate.mean_upper):
        upper = (f"upper bound{of_the_mean}", "none", "the remarks say why")
    else:
        how = certified if certificate.kind != "real" else "if the chains reach all of the posterior"
        upper = (f"upper bound{of_the_mean}", f"{certificate.mean_upper:.3f}", how)
    return [
        (f"lower bound{of_the_mean}", f"{certificate.mean_lower:.3f}", certified),
        ("estimate", f"{section['log_evidence']:.3f}", f"± {section['log_evidence_monte_carlo_error']:.3f}"),
        upper,
        ("width", f"{section['mean_width']:.3f}", reached),
    ]
