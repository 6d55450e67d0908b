"""Pairs of Pyro programs, one a file, and what they are made of: networks and likelihoods."""

from .autoencoder import Autoencoder
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
from .network import FeedForward
from .networks import MLP, ConvDecoder, ConvEncoder, Layer, Neuron
from .vae import VAE

__all__ = [
    "MLP",
    "VAE",
    "Autoencoder",
    "Bernoulli",
    "Binomial",
    "Categorical",
    "ConvDecoder",
    "ConvEncoder",
    "FeedForward",
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
