"""The caption of each figure of a run: what it shows, for those who cannot see it, and how to read it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caption:
    """The caption of a figure.

    Attributes:
        alt: what the figure shows, in place of it.
        reading: how to read it, in one to four sentences.
    """

    alt: str
    reading: str


# In the order in which they are shown: a caption may refer to the one before.
CAPTIONS = {
    "training": Caption(
        "Two curves of the ELBO per datum against the epoch, for training and validation data.",
        "Higher is better. Training is long enough where the validation curve is flat; where it falls while the "
        "training curve still rises, the pair overfits.",
    ),
    "bound": Caption(
        "The K-sample bound against the number of particles K, climbing from the ELBO towards log p(x).",
        "Draws of the guide alone give a bound that rises from the ELBO (K = 1) towards log p(x), the broken line. "
        "Where the curve ends below the line, so many draws are not enough.",
    ),
    "gap": Caption(
        "A histogram of the gap, log p(x) minus ELBO, over the data; data whose log p(x) is doubtful are hatched.",
        "A large gap means that the guide is far from the posterior of that datum. Where a bar is hatched, the gap "
        "is probably larger than shown.",
    ),
    "khat": Caption(
        "A point for the k-hat of every datum, with a line at 0.7 and a broken one at 1.",
        "Below the line at 0.7 draws of the guide are enough for log p(x) and its interval. Above it they give too low "
        "a value; above the broken line at 1 more draws hardly help.",
    ),
    "certificate": Caption(
        "For every datum how far its bounds lie below and above the estimate of log p(x), and a band for their mean.",
        "Each vertical line spans the bounds of the log p(x) of one datum: the shorter, the better it is known. The"
        " band spans the bounds of the mean, in which the errors of single data cancel.",
    ),
    "waterfall": Caption(
        "Steps that lead from the ELBO up to log p(x), one for each cause of the gap.",
        "Each block is the part of the gap that one remedy could remove: a better network for the amortisation, a "
        "richer family of guides for the others. The black bars are two standard errors.",
    ),
    "mended": Caption(
        "Steps from the ELBO up to log p(x), one for each cause of the gap, before and after the guide was mended.",
        "The same blocks before and after, on the same data and scale. A block that is shorter after mending shows "
        "what mending removed. The black bars are two standard errors.",
    ),
    "collapse": Caption(
        "Bars of what short trainings with one thing changed gained, and how many unused latent units they woke.",
        "Each bar is the ELBO on data held out after a short training with one thing changed, less that without the "
        "change. A change that wakes units and gains names the cause of their being unused. The lines are two standard "
        "errors.",
    ),
    "latent_units": Caption(
        "Bars of the KL divergence of every latent unit, the largest first.",
        "The longer a bar, the more its unit carries about x. A unit near zero has collapsed and could be removed.",
    ),
    "latent_units_map": Caption(
        "Points and ellipses of the guide at the data, over grey draws of the prior, in two latent coordinates.",
        "Each blue point is the guide's mean for one datum, in the two latent coordinates that differ most between "
        "data. Grey dots are draws of the prior: where there are no blue points near them, the model generates "
        "data unlike all of these.",
    ),
    "calibration_prior": Caption(
        "Three panels of ECDFs of ranks minus even ones, with bands, on data drawn from the model.",
        "On data drawn from the model. An orange curve fails a test: outside the green band by the curve itself, "
        "inside it by the mean or the spread of its ranks. In the left panel a curve that first rises and then "
        "falls means a guide that is too narrow. The other two panels test all units together, and dip where exact "
        "draws lie farther out than the guide's.",
    ),
    "calibration_data": Caption(
        "Three panels of ECDFs of ranks minus even ones, with bands, on data drawn near the data.",
        "The same on simulations that resemble the data. A fault here matters; a fault only on data drawn from the "
        "model does not.",
    ),
    "quality": Caption(
        "The guide's width against its shift, for every datum and latent coordinate, beside the posterior itself.",
        "The cross marks the posterior. Points below it are too narrow, points to its left and right are shifted.",
    ),
    "quality_exact": Caption(
        "Panels of the exact posterior of single data in the latent plane, with the guide's ellipses over it.",
        "The blue regions are the exact posterior, computed on a grid. The ellipses of an exact guide would outline"
        " them.",
    ),
    "quality_forest": Caption(
        "Intervals of latent coordinates of one datum by the guide, the reweighted guide and the reference.",
        "One typical datum, in the coordinates that differ most. Thick lines hold half of the draws, thin lines "
        "94\u202f%. Where the guide (orange) and the reference (blue) differ, the guide is wrong; green shows how far "
        "importance weights correct it.",
    ),
    "quality_pair": Caption(
        "Draws of the guide and of the reference in planes of two latent coordinates of one datum.",
        "The same datum, in the few coordinates that differ most. The orange cloud of the guide should cover the "
        "blue one of the reference, in place, width and slope.",
    ),
    "quality_ranks": Caption(
        "Rank curves of four Markov chains for one datum, with a band.",
        "A check of the reference itself. Each curve is one of four of its Markov chains: inside the grey band they"
        " agree with each other.",
    ),
    "quality_traces": Caption(
        "The values that four Markov chains took one after the other, for one datum.",
        "The same chains, draw by draw. They should look like the same noise, with no separate chain and no slow "
        "drift.",
    ),
    "quality_refused": Caption(
        "The values that four Markov chains took for a datum whose draws were refused as a reference.",
        "A datum without a reference: its chains stay apart or hardly move, and have not drawn from the posterior. "
        "Four of them are shown.",
    ),
    "ppc_posterior": Caption(
        "Cumulative curves of data drawn from the model at the guide's draws, and that of the data.",
        "For the data that were compared with reference draws: values drawn from p(x|z), z ~ q(z|x) (blue), should "
        "be distributed as those of the data (black).",
    ),
    "ppc_prior": Caption(
        "Cumulative curves of data drawn from the model's prior, and that of the data.",
        "The same for as many data drawn from the model's prior. Where black leaves the blue curves, the model "
        "rarely generates data like these.",
    ),
    "reconstructions": Caption(
        "A row of data, and below each its reconstruction.",
        "Below each datum stands E[x|z] for one draw z of the guide. What it lacks is not encoded in z.",
    ),
    "prior": Caption(
        "A grid of samples from the model.",
        "E[x|z] for draws z of the prior, without the noise that data have. The more they resemble the data, the "
        "better the model has learnt.",
    ),
    "traversal": Caption(
        "A grid: in each row one latent dimension moves through its range while all others are 0.",
        "In each row one latent dimension varies. Where nothing changes, the model does not use it.",
    ),
}


# Those that differ where the data set is the unit.
OF_THE_DATA_SET = {
    "training": Caption(
        "A curve of the ELBO of the data set against the epoch.",
        "Higher is better. Training is long enough where the curve is flat.",
    ),
    "certificate": Caption(
        "How far the bounds lie below and above the estimate of log p(x).",
        "Each vertical line spans the bounds of the log p(x) of one data set, the given one or one that was simulated.",
    ),
    "quality": Caption(
        "The guide's width against its shift, for every latent coordinate, beside the posterior itself.",
        CAPTIONS["quality"].reading,
    ),
    "quality_forest": Caption(
        "Intervals of latent coordinates by the guide, the reweighted guide and the reference.",
        CAPTIONS["quality_forest"].reading.replace("One typical datum, in", "In"),
    ),
    "quality_pair": Caption(
        "Draws of the guide and of the reference in planes of two latent coordinates.",
        CAPTIONS["quality_pair"].reading.replace("The same datum, in", "In"),
    ),
    "quality_ranks": Caption("Rank curves of four Markov chains, with a band.", CAPTIONS["quality_ranks"].reading),
    "quality_traces": Caption(
        "The values that four Markov chains took one after the other.", CAPTIONS["quality_traces"].reading
    ),
    "quality_refused": Caption(
        "The values that four Markov chains took, whose draws were refused as a reference.",
        CAPTIONS["quality_refused"].reading.replace("A datum without a reference: its chains", "The chains"),
    ),
    "quality_exact": Caption(
        "The exact posterior in the plane of the two latents, with the guide's ellipses over it.",
        CAPTIONS["quality_exact"].reading,
    ),
    "ppc_posterior": Caption(
        CAPTIONS["ppc_posterior"].alt,
        "Values drawn from p(x|z), z ~ q(z|x) (blue), should be distributed as those of the data (black).",
    ),
    "ppc_prior": Caption(
        CAPTIONS["ppc_prior"].alt,
        "The same for data drawn from the model's prior. Where black leaves the blue curves, the model rarely "
        "generates data like these.",
    ),
}


def has_caption(name: str) -> bool:
    """Whether a figure of this name is shown."""
    return name in CAPTIONS


def caption(name: str, unit: str = "datum") -> Caption:
    """The caption of the figure of a name, for a run whose unit is the datum or the data set."""
    return OF_THE_DATA_SET.get(name, CAPTIONS[name]) if unit == "data set" else CAPTIONS[name]


def place(name: str) -> int:
    """The position of a figure among the others."""
    return list(CAPTIONS).index(name)
