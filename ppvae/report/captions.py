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


# In the order in which they are shown: a sentence may lean on the one before.
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
    "khat": Caption(
        "A point for the k-hat of every datum, with a line at 0.7 and a broken one at 1.",
        "Points below the line are data whose estimate and interval hold; above it the true log p(x) is probably "
        "higher, and above the broken one more draws of the guide hardly help.",
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
    "latent_units": Caption(
        "Bars of the KL divergence of every latent unit, the busiest first.",
        "The longer a bar, the more its unit tells about x: one near zero has collapsed and could be left out.",
    ),
    "latent_units_map": Caption(
        "Points and ellipses of the guide at the data, over grey draws of the prior, in two latent coordinates.",
        "Each blue point is where the guide puts a datum, in the two latent coordinates that differ most between "
        "data; were grey dots, which the prior draws, without blue among them, the model would invent what no datum "
        "looks like.",
    ),
    "calibration_prior": Caption(
        "Three panels of ECDFs of ranks minus even ones, with bands, on data drawn from the model.",
        "On data drawn from the model: orange curves are at fault, and those that leave the green band show it "
        "(others are, by their mean or spread). The left panel's rise first and then fall where the guide is too "
        "narrow; the other two judge all units together, and dip where exact draws lie farther out than the guide's.",
    ),
    "calibration_data": Caption(
        "Three panels of ECDFs of ranks minus even ones, with bands, on data drawn near the data.",
        "The same on simulations that look like the data: a fault here counts, one that shows only on data from the "
        "model does not.",
    ),
    "quality": Caption(
        "The guide's width against its shift, for every datum and latent coordinate, beside the posterior itself.",
        "The cross is the posterior itself: points below it are too narrow, points to its left and right off to one "
        "side.",
    ),
    "quality_exact": Caption(
        "Panels of the exact posterior of single data in the latent plane, with the guide's ellipses over it.",
        "The blue regions are the exact posterior, computed on a grid; were the guide right, its ellipses would "
        "outline them.",
    ),
    "quality_forest": Caption(
        "Intervals of latent coordinates of one datum by the guide, the reweighted guide and the reference.",
        "For one typical datum and the coordinates that differ most, thick lines hold half of the draws, thin ones "
        "94 %: where orange lies beside blue the guide is wrong, and green shows how far weights mend it.",
    ),
    "quality_pair": Caption(
        "Draws of the guide and of the reference in planes of two latent coordinates of one datum.",
        "The same datum, in the few coordinates that differ most: the orange cloud of the guide should cover the "
        "blue one of the reference, in place, width and slant.",
    ),
    "quality_ranks": Caption(
        "Rank curves of four Markov chains for one datum, with a band.",
        "Is the reference itself sound? Each curve is one of four of its Markov chains: inside the grey band they "
        "agree with each other.",
    ),
    "quality_traces": Caption(
        "The values that four Markov chains took one after the other, for one datum.",
        "The same chains step by step: they should look like one noise, with no chain apart and no slow drift.",
    ),
    "quality_refused": Caption(
        "The values that four Markov chains took for a datum whose draws were refused as a reference.",
        "A datum that was refused: somewhere its chains stay apart, or hardly move, and have not drawn from the "
        "posterior; four of them are shown.",
    ),
    "ppc_posterior": Caption(
        "Cumulative curves of data that the model makes from the guide's draws, and that of the data.",
        "For the data that were compared with reference draws: what the model makes of their codes (blue) should "
        "have the same values as they have (black).",
    ),
    "ppc_prior": Caption(
        "Cumulative curves of data that the model makes from its prior, and that of the data.",
        "The same for as many data that the model invents: where black leaves the blue bundle, the model hardly "
        "makes data like these.",
    ),
    "reconstructions": Caption(
        "A row of test data, and below each its reconstruction.",
        "Below each datum stands what the model makes of its code: what is missing there, the code does not tell.",
    ),
    "prior": Caption(
        "A grid of samples from the model.",
        "These are invented by the model from the prior alone, without the noise that data have: the more they look "
        "like data, the better it has learnt.",
    ),
    "traversal": Caption(
        "A grid: in each row one latent dimension moves through its range while all others are 0.",
        "Along a row one latent dimension moves: where nothing changes, the model does not use it.",
    ),
}


def has_caption(name: str) -> bool:
    """Whether a figure of this name is shown."""
    return name in CAPTIONS


def caption(name: str) -> Caption:
    """What is said with the figure of a name."""
    return CAPTIONS[name]


def place(name: str) -> int:
    """Where a figure stands among the others."""
    return list(CAPTIONS).index(name)
