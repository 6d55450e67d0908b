"""What has each pair of models/ learnt, and what is its held-out ELBO?

Every pair is made as `ppvae run --pair NAME` makes it, on the data that it takes by default, trained, and shown by the
picture that says most of it. The pictures are for the eye; `ppvae run --pair NAME` measures log p(x) and the gap.
Sources: those that the files of models/ name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure

from ppvae.inference import fit, log_weights
from ppvae.inference.pair.randomness import seeded
from ppvae.percent import percent
from ppvae.storage import Settings

from .experiment import Result
from .figures import pair_pictures as show
from .runs.run_data import load_pair_and_data

PICTURES: dict[str, show.Draw] = {
    "BoundedLatentVAE": show.parts,
    "ConditionalVAE": show.labels,
    "ConvolutionalVAE": show.draws,
    "CountVAE": show.shares,
    "DeepMarkovModel": show.sequences,
    "DiscreteVAE": show.codebook,
    "FactorAnalysis": show.loadings,
    "FlowVAE": show.prior_draws,
    "GaussianMixtureVAE": show.components,
    "HIVAE": show.mixed_columns,
    "HierarchicalVAE": show.layers,
    "ItemResponse": show.items,
    "MIWAE": show.imputed,
    "MixturePriorVAE": show.prior_draws,
    "NotMIWAE": show.reasons,
    "ProdLDA": show.topics,
    "RelaxedVAE": show.relaxed_codebook,
    "SemiSupervisedVAE": show.labels,
    "VampPriorVAE": show.pseudo_inputs,
}


@dataclass(frozen=True)
class Config:
    """How large the experiment is.

    Args:
        pairs: which are trained and shown.
        epochs: passes over the training data.
        seed: of initial weights, batches and draws.
    """

    pairs: tuple[str, ...] = tuple(PICTURES)
    epochs: int = 40
    seed: int = 0


SMALL = Config(pairs=("ItemResponse", "ProdLDA"), epochs=1)


def run(config: Config = Config()) -> Result:
    """Train each pair and draw its picture."""
    rows, figures = [], {}
    for name in config.pairs:
        row, figure = _entry(name, config)
        rows.append(row)
        figures[name] = figure
    return Result(
        title=f"Pairs after {config.epochs} epochs: nats per datum, one draw of the guide for each of the test data",
        rows=rows,
        conclusions=[f"{row['pair']}: {row['learnt']}." for row in rows if row["learnt"]],
        figures=figures,
    )


def _entry(name: str, config: Config) -> tuple[dict[str, Any], Figure]:
    pair, run_data = load_pair_and_data(Settings(pair=name, seed=config.seed))
    data = run_data.data
    fit(pair.model, pair.guide, data, epochs=config.epochs, batch_size=100, learning_rate=3e-3, seed=config.seed)
    batch = data.batch("test")
    elbo = log_weights(pair.model, pair.guide, batch, 1, seed=config.seed)[0]
    error = elbo.std() / len(elbo) ** 0.5
    with seeded(config.seed), torch.no_grad():
        figure = PICTURES[name](pair, data)
        learnt = _learnt(name, pair, batch)
    row = {"pair": name, "data": data.name, "ELBO": elbo.mean().item(), "standard error": error.item()}
    return {**row, "learnt": learnt}, figure


def _learnt(name: str, pair: Any, batch: tuple[torch.Tensor, ...]) -> str:
    """A number of what a pair has learnt, in words; empty where the picture says it all."""
    if name == "SemiSupervisedVAE":
        x = load_pair_and_data(Settings(pair="ConditionalVAE"))[1].data
        right = (pair.classify(batch[0]).argmax(-1) == x.batch("test")[1]).double().mean().item()
        return f"{percent(right)} of the test data get their label, from 200 that had one"
    if name == "NotMIWAE":
        gaps, none = pair.missing_slope[::2].mean(), pair.missing_slope[1::2].mean()
        return f"values go missing with slope {gaps:.1f} in the columns with gaps, {none:.1f} in the others"
    if name == "ItemResponse":
        return f"log p(x) = {pair.log_evidence(batch[0]).mean():.3f} by quadrature"
    return ""
