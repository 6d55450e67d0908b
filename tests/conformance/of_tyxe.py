"""Bayesian networks of TyXe."""

from functools import partial

import pyro.distributions as dist
import torch
import tyxe
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal


class LinearRegression:
    """VariationalBNN, a linear layer"""

    PACKAGE, SETTINGS = "tyxe", {"epochs": 300, "learning_rate": 0.02}

    def __init__(self):
        prior = tyxe.priors.IIDPrior(dist.Normal(0.0, 1.0))
        likelihood = tyxe.likelihoods.HomoskedasticGaussian(dataset_size=20, scale=0.5)
        self.bnn = tyxe.VariationalBNN(self.network(), prior, likelihood, self.guide_of_weights)

    network = staticmethod(lambda: torch.nn.Linear(2, 1))
    guide_of_weights = AutoMultivariateNormal

    def data(self):
        inputs = torch.randn(20, 2)
        return inputs @ torch.tensor([[1.0], [-0.5]]) + 0.5 * torch.randn(20, 1), inputs

    def model(self, y, inputs):
        return self.bnn.model(inputs, y)

    def guide(self, y, inputs):
        return self.bnn.guide(inputs, y)

    def truth(self, x):
        """log N(y; 0, X Xᵀ + 1 + scale²)."""
        y, inputs = x
        covariance = inputs @ inputs.T + 1.0 + 0.25 * torch.eye(len(y))
        return dist.MultivariateNormal(torch.zeros(len(y)), covariance).log_prob(y[:, 0])[None]


class HiddenLayer(LinearRegression):
    """VariationalBNN, a hidden layer, AutoNormal of Pyro"""

    network = staticmethod(lambda: torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)))
    guide_of_weights = AutoNormal
    truth = None


class Network(HiddenLayer):
    """VariationalBNN, a hidden layer, AutoNormal of TyXe"""

    REFUSED = "no attribute 'deep_getattr'"  # which Pyro 1.9.2 has no more
    guide_of_weights = partial(tyxe.guides.AutoNormal, init_scale=0.1)
