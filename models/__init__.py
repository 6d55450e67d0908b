"""Pairs of Pyro programs, one a file, and what they are made of: networks and likelihoods."""

from .autoencoder import Autoencoder
from .bounded_latent import BoundedLatentVAE
from .conditional import ConditionalVAE
from .convolutional import ConvolutionalVAE
from .counts import CountVAE
from .deep_markov import DeepMarkovModel
from .discrete import DiscreteVAE
from .factor_analysis import FactorAnalysis
from .flow import FlowVAE
from .gaussian_mixture import GaussianMixtureVAE
from .hi_vae import HIVAE
from .hierarchical import HierarchicalVAE
from .item_response import ItemResponse
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
from .missing_data import MIWAE, NotMIWAE
from .mixture_prior import MixturePriorVAE
from .network import FeedForward
from .networks import MLP, ConvDecoder, ConvEncoder, Layer, Neuron
from .prod_lda import ProdLDA
from .relaxed import RelaxedVAE
from .semi_supervised import SemiSupervisedVAE
from .vae import VAE
from .vamp_prior import VampPriorVAE

__all__ = [
    "HIVAE",
    "MIWAE",
    "MLP",
    "VAE",
    "Autoencoder",
    "Bernoulli",
    "Binomial",
    "BoundedLatentVAE",
    "Categorical",
    "ConditionalVAE",
    "ConvDecoder",
    "ConvEncoder",
    "ConvolutionalVAE",
    "CountVAE",
    "DeepMarkovModel",
    "DiscreteVAE",
    "FactorAnalysis",
    "FeedForward",
    "FlowVAE",
    "GaussianMixtureVAE",
    "HierarchicalVAE",
    "ItemResponse",
    "Layer",
    "Likelihood",
    "LinearGaussian",
    "MixturePriorVAE",
    "NegativeBinomial",
    "Neuron",
    "Normal",
    "NormalFeatureScale",
    "NormalSharedScale",
    "NotMIWAE",
    "Poisson",
    "ProdLDA",
    "RelaxedVAE",
    "SemiSupervisedVAE",
    "VampPriorVAE",
]
