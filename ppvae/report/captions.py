"""What is said with each figure of a run: a title, what it shows for those who cannot see it, how to read it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caption:
    """What is said with a figure.

    Attributes:
        alt: what the figure shows, in place of it.
        reading: one sentence that says how to read it.
    """

    alt: str
    reading: str


CAPTIONS = {
    "training": Caption(
        "Two curves of the ELBO per datum against the epoch, for training and validation data.",
        "Higher is better: training has gone far enough where the validation curve is flat, and too far where it falls "
        "while the training curve still rises.",
    ),
    "bound": Caption(
        "The K-sample bound against the number of particles K, climbing from the ELBO to the estimate of log p(x).",
        "The curve climbs from the ELBO on the left towards log p(x): if it still rises at the right end, log p(x) is "
        "higher than the estimate.",
    ),
    "gap": Caption(
        "A histogram of the gap, log p(x) minus ELBO, over the data; data with a high k-hat are hatched.",
        "Each datum adds to a bar at its gap: far to the right the guide is far from the posterior, and where a bar is "
        "hatched the gap is probably larger still.",
    ),
    "certificate": Caption(
        "For every datum an interval that holds log p(x), in the order of the estimate; a band for their mean.",
        "Each upright line is a datum, and its log p(x) lies on the line: short lines are well known; the band is the "
        "mean between its bounds.",
    ),
    "waterfall": Caption(
        "Steps that lead from the ELBO up to log p(x), one for each cause of the gap.",
        "Each block is what one remedy could win: the amortisation a better network, the others a richer family of "
        "guides; the black strokes are two standard errors.",
    ),
    "reconstructions": Caption(
        "A row of test data, and below each its reconstruction.",
        "Below each datum stands what the model makes of its code: what is missing there, the code does not tell.",
    ),
    "prior": Caption(
        "A grid of samples from the model.",
        "These are invented by the model from the prior alone: the more they look like data, the better it has learnt.",
    ),
    "traversal": Caption(
        "A grid: in each row one latent dimension moves through its range while all others are 0.",
        "Along a row one latent dimension moves: where nothing changes, the model does not use it.",
    ),
}
# Figures of the sections to come, by how their names begin.
FAMILIES = {
    "calibration": Caption(
        "Ranks of true values among draws of the guide, against what an exact guide would show.",
        "Inside the band the guide's uncertainty is right; a curve that leaves it shows a guide too narrow, too wide "
        "or off to one side.",
    ),
    "quality": Caption(
        "The guide against reference draws of the exact posterior.",
        "Where the two agree, q(z|x) can be used as a posterior; where they part, it cannot.",
    ),
    "latent_units": Caption(
        "What each latent unit tells about the data.",
        "A unit near zero has collapsed: it tells nothing about x and could be left out.",
    ),
}


def caption(name: str) -> Caption:
    """What is said with the figure of a name, its own or its family's."""
    if name in CAPTIONS:
        return CAPTIONS[name]
    return next(caption for family, caption in FAMILIES.items() if name.startswith(family))
