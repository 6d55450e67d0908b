"""Gaussian processes of GPyTorch with its Pyro programs."""

import gpytorch
import torch


class _Process(gpytorch.models.PyroGP):
    """The class of GPyTorch's tutorial on its Pyro integration."""

    def __init__(self, inputs, likelihood):
        points = inputs[::3].unsqueeze(-1)
        distribution = gpytorch.variational.CholeskyVariationalDistribution(len(points))
        strategy = gpytorch.variational.VariationalStrategy(self, points, distribution)
        super().__init__(strategy, likelihood, num_data=len(inputs))
        self.mean_module = gpytorch.means.ConstantMean()
        self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


class VariationalProcess:
    """PyroGP, Gaussian likelihood"""

    PACKAGE, SETTINGS = "gpytorch", {"epochs": 100, "learning_rate": 0.02}
    UNTRAINED = "Trying to backward through the graph a second time"  # what Pyro's own SVI says too

    def __init__(self):
        self.inputs = torch.linspace(0.0, 3.0, 12)
        self.process = _Process(self.inputs, gpytorch.likelihoods.GaussianLikelihood())

    def data(self):
        return (torch.sin(2 * self.inputs) + 0.2 * torch.randn(12))[:, None]

    def model(self, y):
        return self.process.model(self.inputs, y[:, 0])

    def guide(self, y):
        return self.process.guide(self.inputs, y[:, 0])
