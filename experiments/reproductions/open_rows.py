"""Published figures that cannot be held against ours here, each with the reason."""

from __future__ import annotations

from .row import Published, Row


def _open(name: str, title: str, published: tuple[Published, ...], source: str, why: str) -> Row:
    return Row(name, title, published, source, "", "", None, why)


QUADRANTS = tuple(
    Published(f"negative conditional log-likelihood given {what}, nats", value, 0.05, better="lower")
    for what, value in (("1 quadrant", 71.8), ("2 quadrants", 51.0), ("3 quadrants", 24.2))
)
CHORALES = tuple(
    Published(f"negative log-likelihood a time step, {guide}, nats", value, 0.005, better="lower")
    for guide, value in (("Gaussian guide", 6.87), ("one flow", 6.82), ("two flows", 6.80))
)

ROWS = (
    _open(
        "quadrants",
        "Conditional VAE of the missing quadrants of MNIST",
        QUADRANTS,
        "Pyro's example on the conditional VAE",
        "the published figures score grey pixels by a Bernoulli distribution, which has no density there; a figure of "
        "zeros and ones is another quantity, and no pair here is conditioned on pixels",
    ),
    _open(
        "pythae_vae",
        "pythae's VAE on binarised MNIST",
        (Published("negative log-likelihood by K = 200, nats", 89.78, 0.005, better="lower"),),
        "pythae (Chadebec, Vincent & Allassonnière, 2022), reproducibility table",
        "a bound from 200 draws of the guide: those of fixed_mnist_vae, from 5000, are not to be compared with it",
    ),
    _open(
        "chorales",
        "Deep Markov model on the JSB chorales",
        CHORALES,
        "Pyro's tutorial on the deep Markov model",
        "5000 epochs of 129 steps are days on a processor; the data and the pair (`DeepMarkovModel`) are at hand",
    ),
    _open(
        "cortex",
        "scVI and factor analysis on the CORTEX cells",
        (
            Published("scVI: negative log-likelihood, nats", 1196.37, 0.005, better="lower"),
            Published("factor analysis: negative log-likelihood, nats", 1282.89, 0.005, better="lower"),
        ),
        "Lopez et al. (2018), Nature Methods 15",
        "the data are not at hand",
    ),
    _open(
        "mnist_iwae_500",
        "VAE 784-200-200-50 on MNIST by IWAE, K = 500",
        (Published("negative log-likelihood by AIS, nats", 83.87, 0.005, better="lower"),),
        "arXiv:2107.10211, table 2",
        "ten times the work of K = 50, which is cut short already",
    ),
)
