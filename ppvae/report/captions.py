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
        "For every datum how far its bounds lie below and above the estimate of log p(x), and a band for their mean.",
        "Each upright line is a datum whose log p(x) lies on it: the shorter, the better known; the band holds the "
        "mean, for which what is too high and too low in single data cancels.",
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
# Figures of which a section may have several, by how their names begin.
FAMILIES = {
    "calibration": Caption(
        "Curves of how the ranks of true latents among draws of the guide depart from even ones, with a band.",
        "Each curve is a latent unit: inside the band no fault was found; one that leaves it shows a guide that is too "
        "narrow, too wide or off to one side.",
    ),
    "quality": Caption(
        "The guide's width against its shift, for every datum and latent coordinate, beside the posterior itself.",
        "The cross is the posterior itself: points below it are too narrow, points to its left and right off to one "
        "side.",
    ),
    "latent_units": Caption(
        "Bars of the KL divergence of every latent unit, the busiest first.",
        "The longer a bar, the more its unit tells about x: one near zero has collapsed and could be left out.",
    ),
}


def has_caption(name: str) -> bool:
    """Whether a figure of this name is shown."""
    return name in CAPTIONS or name.startswith(tuple(FAMILIES))


def caption(name: str) -> Caption:
    """What is said with the figure of a name, its own or its family's."""
    if name in CAPTIONS:
        return CAPTIONS[name]
    return next(caption for family, caption in FAMILIES.items() if name.startswith(family))
