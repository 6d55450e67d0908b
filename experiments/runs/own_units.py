"""Numbers of standardised data in the units of their file: log p(x) = log p(y) − Σ_j log s_j, y_j = (x_j − m_j)/s_j.

A run trains on y and measures y; whatever it writes down of log p(x), ELBO or bounds goes through here. The gap, k-hat,
errors and divergences are the same for x and for y.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import xarray as xr
from torch import Tensor

from ppvae.inference import Evidence, GapAttribution, Refinement
from ppvae.inference.evidence import shifted
from ppvae.inference.posterior import in_own_units

from .run_data import RunData


def log_jacobian(run_data: RunData, x: Tensor) -> Tensor:
    """What is added to log p of standardised data, by unit: ``(num_data,)``, or ``(1,)`` of a data set; 0 of others."""
    units = run_data.data.standardisation
    by_datum = torch.zeros(len(x), dtype=torch.float64) if units is None else units.log_jacobian(x).cpu()
    return by_datum if run_data.unit == "datum" else by_datum.sum(0, keepdim=True)


def of_evidence(run_data: RunData, x: Tensor, evidence: Evidence) -> Evidence:
    """A record of standardised data as one of the data in their own units."""
    return evidence if run_data.data.standardisation is None else shifted(evidence, log_jacobian(run_data, x))


def of_gap(run_data: RunData, x: Tensor, gap: GapAttribution) -> GapAttribution:
    """The causes of the gap, whose parts are the same, with log p(x) and ELBOs of the data in their own units."""
    if run_data.data.standardisation is None:
        return gap
    by = log_jacobian(run_data, x).to(gap.log_evidence)
    return replace(gap, log_evidence=gap.log_evidence + by, refinement=_moved(gap.refinement, by))


def of_draws(run_data: RunData, x: Tensor, draws: xr.DataTree) -> xr.DataTree:
    """Draws for ArviZ from standardised data as draws of the data in their own units."""
    units = run_data.data.standardisation
    return draws if units is None else in_own_units(draws, units, x)


def _moved(member: Refinement, by: Tensor) -> Refinement:
    poorer = None if member.poorer is None else _moved(member.poorer, by)
    return replace(member, elbo=member.elbo + by, poorer=poorer)


def of_history(run_data: RunData, history: list[dict[str, float]]) -> list[dict[str, float]]:
    """The rows of a training: ELBOs of training and validation data, by unit, each with the mean of its Jacobian."""
    data = run_data.data
    if data.standardisation is None:
        return history
    parts = {"elbo": data.some(), "validation_elbo": data.validation}
    added = {name: float(log_jacobian(run_data, x).mean()) for name, x in parts.items() if len(x)}
    return [{name: value + added.get(name, 0.0) for name, value in row.items()} for row in history]
