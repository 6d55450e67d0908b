"""Cell interactions over time, DIISCO."""

import torch
from diisco import diisco


class Interactions:
    """DIISCO, MultivariateNormalFactorized"""

    PACKAGE, SETTINGS = "diisco", {}
    REFUSED = "only-in-guide"  # its handlers hide a site of the model that the guide samples

    def __init__(self):
        self.diisco = diisco.DIISCO(lambda_matrix=torch.ones(2, 2))
        self.diisco.fit(*reversed(self.data()), n_iter=200, lr=0.02)

    def data(self):
        time = torch.linspace(0.0, 4.0, 6)
        return torch.stack((torch.sin(time), torch.cos(time)), -1), time[:, None]

    def train(self, x):
        """The guide is made by the trainer, and so trained already."""

    def model(self, proportions, timepoints):
        return self.diisco.model(timepoints, proportions)

    def guide(self, proportions, timepoints):
        return self.diisco.guide(timepoints, proportions)
