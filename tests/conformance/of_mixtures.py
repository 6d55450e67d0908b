"""Mixtures fitted to a point: MOBSTERm and pylineaGT."""

import torch
from MOBSTERm.model_mobster import mobster_MV
from pylineaGT.mvnmm import MVNMixtureModel


class Subclones:
    """mobster_MV"""

    PACKAGE, SETTINGS = "mobsterm", {"epochs": 20, "learning_rate": 0.01}
    REFUSED, PAGE = "point-mass", "no: the guide has no density"

    def __init__(self):
        reads = torch.distributions.Binomial(
            100, torch.tensor([0.25, 0.5]).repeat_interleave(15)[:, None].expand(-1, 2)
        )
        self.mobster = mobster_MV(
            reads.sample(),
            torch.full((30, 2), 100.0),
            None,
            2,
            [1.0, 1.0],
            None,
            0,
            0.05,
            0.01,
            False,
            "",
            None,
            None,
            0,
        )
        self.mobster.cluster_initialization()
        self.mobster.gaussian_noise = torch.zeros(2, 2)
        self.mobster.cluster_initialization(compute_kmeans=False)

    def data(self):
        return self.mobster.NV

    def model(self, x):
        self.mobster.NV = x
        return self.mobster.model()

    def guide(self, x):
        return self.mobster.guide()


class Lineages:
    """MVNMixtureModel"""

    PACKAGE, SETTINGS = "pylineagt", {"epochs": 20, "learning_rate": 0.01}
    REFUSED, PAGE = "point-mass", "no: the guide has no density"

    def __init__(self):
        self.x = 10 * torch.randn(20, 2) + 50 * torch.arange(20)[:, None].remainder(2) + 60
        self.mixture = MVNMixtureModel(2, self.x, columns=["a", "b"], lineages=["one"])
        self.mixture.fit(steps=25, seed_optim=False, init_seed=0, show_progr=False, check_conv=False)

    def train(self, x):
        """The trainer makes the guide."""

    def data(self):
        return self.x

    def model(self, x):
        return self.mixture.model()

    def guide(self, x):
        return self.mixture._global_guide()
