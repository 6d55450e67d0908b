"""Pairs of Pyro programs, one a file, and what they are made of: networks and likelihoods."""

from .likelihoods import (
    Bernoulli,
    Binomial,
    Categorical,
    Likelihood,
    NegativeBinomial,
    Normal,
    NormalFeatureScale,
    NormalSharedScale,
    Poisson,
)
from .linear import LinearGaussian
from .networks import MLP, ConvDecoder, ConvEncoder, Layer, Neuron
from .vae import VAE

__all__ = [
    "MLP",
    "VAE",
    "Bernoulli",
    "Binomial",
    "Categorical",
    "ConvDecoder",
    "ConvEncoder",
    "Layer",
    "Likelihood",
    "LinearGaussian",
    "NegativeBinomial",
    "Neuron",
    "Normal",
    "NormalFeatureScale",
    "NormalSharedScale",
    "Poisson",
]
