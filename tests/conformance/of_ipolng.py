"""Topic models of iPoLNG."""

import torch
from iPoLNG import iPoLNG


class PoissonLogisticNormalGamma:
    """PoLNG"""

    PACKAGE, SETTINGS = "iPoLNG", {"epochs": 200, "learning_rate": 0.05}

    def __init__(self):
        helper = iPoLNG.PoLNG_helper(num_topics=2)
        self.model, self.guide = helper.model, helper.guide

    def data(self):
        rates = torch.tensor([[6.0, 6.0, 6.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 6.0, 6.0, 6.0]])
        return torch.poisson(rates[torch.arange(12) % 2])
