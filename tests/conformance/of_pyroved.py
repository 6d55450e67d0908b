"""Variational autoencoders of pyroVED."""

import sys
from importlib.util import find_spec
from types import ModuleType

import torch
from pyro.infer import config_enumerate

if "torchvision" not in sys.modules and find_spec("torchvision") is None:
    # pyroVED takes one function from torchvision, to draw pictures; the wheel on PyPI is of torch with CUDA only.
    stand_in = ModuleType("torchvision.utils")
    stand_in.make_grid = None
    sys.modules.setdefault("torchvision", ModuleType("torchvision"))
    sys.modules.setdefault("torchvision.utils", stand_in)
import pyroved


def pictures(num: int = 24) -> torch.Tensor:
    """Binary pictures of a bar that turns, 6×6."""
    angle = torch.rand(num, 1, 1) * 3.14
    across = torch.linspace(-1, 1, 6)
    return (across[:, None] * torch.cos(angle) + across * torch.sin(angle)).abs().lt(0.35).float()


class RotationInvariant:
    """iVAE, rotation and translation"""

    PACKAGE, SETTINGS = "pyroved", {"epochs": 40, "learning_rate": 0.005}

    def __init__(self):
        self.vae = pyroved.models.iVAE(
            (6, 6), latent_dim=1, invariances=["r", "t"], hidden_dim_e=[16], hidden_dim_d=[16], device="cpu"
        )

    def data(self):
        return pictures().reshape(-1, 36)

    def model(self, x):
        return self.vae.model(x.reshape(-1, 6, 6))

    def guide(self, x):
        return self.vae.guide(x.reshape(-1, 6, 6))


class Plain(RotationInvariant):
    """iVAE without invariances"""

    def __init__(self):
        self.vae = pyroved.models.iVAE((6, 6), latent_dim=1, hidden_dim_e=[16], hidden_dim_d=[16], device="cpu")

    def truth(self, x):
        """Quadrature over the latent."""
        step = 0.02
        z = torch.arange(-7.0, 7.0, step)[:, None]
        with torch.no_grad():
            probs = self.vae.decoder(z).reshape(len(z), 36)
            log_p = torch.distributions.Bernoulli(probs[:, None]).log_prob(x).sum(-1)
        return (log_p + torch.distributions.Normal(0.0, 1.0).log_prob(z)).double().logsumexp(0) + torch.tensor(
            step
        ).log()


class SemiSupervised(RotationInvariant):
    """ssiVAE, unlabelled"""

    def __init__(self):
        self.vae = pyroved.models.ssiVAE(
            (6, 6),
            latent_dim=1,
            num_classes=2,
            invariances=["r"],
            hidden_dim_e=[16],
            hidden_dim_d=[16],
            hidden_dim_cls=[16],
            device="cpu",
        )

    def model(self, x):
        return self.vae.model(x)

    def guide(self, x):
        return self.vae.guide(x)


class JointContinuousDiscrete(RotationInvariant):
    """jiVAE, classes summed out"""

    invariances = None

    def __init__(self):
        self.vae = pyroved.models.jiVAE(
            (6, 6),
            latent_dim=1,
            discrete_dim=2,
            invariances=self.invariances,
            hidden_dim_e=[16],
            hidden_dim_d=[16],
            device="cpu",
        )
        self._guide = config_enumerate(self.vae.guide, "parallel", expand=True)  # as pyroVED's trainer does

    def guide(self, x):
        return self._guide(x.reshape(-1, 6, 6))

    def truth(self, x):
        """Quadrature over the latent, and the sum over the classes."""
        step = 0.02
        z = torch.arange(-7.0, 7.0, step)[:, None]
        with torch.no_grad():
            probs = torch.stack([self.vae.decoder([z, one.expand(len(z), 2)]).reshape(-1, 36) for one in torch.eye(2)])
            log_p = torch.distributions.Bernoulli(probs[:, :, None]).log_prob(x).sum(-1)
        log_p = log_p + torch.distributions.Normal(0.0, 1.0).log_prob(z) + torch.tensor(0.5 * step).log()
        return log_p.double().flatten(0, 1).logsumexp(0)


class JointInvariant(JointContinuousDiscrete):
    """jiVAE, classes summed out, rotation"""

    REFUSED = "fails when it is run once|cannot be run on the data"  # without the dim of the classes it cannot run
    truth = None

    invariances = ("r",)
