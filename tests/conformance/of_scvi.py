"""Pyro modules of scvi-tools (single-cell counts)."""

import torch
from scvi.external.decipher._module import DecipherPyroModule
from scvi.module import AmortizedLDAPyroModule


def counts(num: int = 30, genes: int = 8) -> torch.Tensor:
    """Counts of two kinds of cells."""
    rates = torch.tensor([[6.0, 1.0], [1.0, 6.0]]).repeat_interleave(genes // 2, 1)
    return torch.poisson(rates[torch.arange(num) % 2] * torch.rand(num, 1).add(0.5))


class LatentDirichletAllocation:
    """AmortizedLDAPyroModule"""

    PACKAGE, SETTINGS = "scvi-tools", {"epochs": 100, "learning_rate": 0.01}

    def __init__(self):
        self.module = AmortizedLDAPyroModule(n_input=8, n_topics=2, n_hidden=16)

    def data(self):
        return counts()

    def model(self, x):
        return self.module.model(x, x.sum(1), n_obs=len(x))

    def guide(self, x):
        return self.module.guide(x, x.sum(1), n_obs=len(x))


class Decipher:
    """external.Decipher"""

    PACKAGE, SETTINGS = "scvi-tools", {"epochs": 60, "learning_rate": 0.01}

    def __init__(self):
        self.module = DecipherPyroModule(dim_genes=8, dim_v=2, dim_z=3)
        self.model, self.guide = self.module.model, self.module.guide

    def data(self):
        return counts()
