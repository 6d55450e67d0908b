"""Programs that Pyro itself brings, in pyro.contrib."""

import pyro
import pyro.contrib.gp as gp
import pyro.distributions as dist
import torch
from pyro.contrib.cevae import CEVAE
from pyro.contrib.epidemiology.models import SimpleSIRModel
from pyro.contrib.forecast import Forecaster, ForecastingModel
from pyro.contrib.mue.models import FactorMuE, ProfileHMM
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroSample


def curve(num: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs, and a noisy sine at them."""
    inputs = torch.linspace(0.0, 3.0, num)
    return inputs, torch.sin(2 * inputs) + 0.2 * torch.randn(num)


def gaussian_evidence(y, inputs, lengthscale, variance, noise):
    """log N(y; 0, K + noise): what a regression with an RBF kernel says of y."""
    gaps = (inputs[:, None] - inputs) / lengthscale
    covariance = variance * torch.exp(-0.5 * gaps**2) + (noise + 1e-6) * torch.eye(len(y))
    return dist.MultivariateNormal(torch.zeros(len(y)), covariance).log_prob(y)


class Regression:
    """gp.GPRegression"""

    PACKAGE, SETTINGS = "pyro-ppl", {"epochs": 30, "learning_rate": 0.05}

    def __init__(self):
        self.inputs, self.y = curve()
        self.gp = gp.models.GPRegression(self.inputs, self.y, gp.kernels.RBF(input_dim=1), noise=torch.tensor(0.1))

    def data(self):
        return self.y[:, None]

    def model(self, y):
        self.gp.set_data(self.inputs, y[:, 0])
        return self.gp.model()

    def guide(self, y):
        return self.gp.guide()

    def truth(self, y):
        kernel = self.gp.kernel
        return gaussian_evidence(y[:, 0], self.inputs, kernel.lengthscale, kernel.variance, self.gp.noise).detach()[
            None
        ]


class RegressionWithPriors(Regression):
    """gp.GPRegression, priors on lengthscale and noise"""

    SETTINGS = {"epochs": 100, "learning_rate": 0.05}

    def __init__(self):
        super().__init__()
        self.gp.kernel.variance = torch.tensor(1.0)
        self.gp.kernel.lengthscale = PyroSample(dist.LogNormal(0.0, 0.5))
        self.gp.noise = PyroSample(dist.LogNormal(-2.0, 0.5))
        self.gp.kernel.autoguide("lengthscale", dist.Normal)
        self.gp.autoguide("noise", dist.Normal)

    def truth(self, y):
        """Quadrature over both logarithms."""
        step = 0.25
        a, b = torch.cartesian_prod(*[torch.arange(-4.5, 4.5, step)] * 2).T
        variance = self.gp.kernel.variance.detach()
        log_y = gaussian_evidence(
            y[:, 0], self.inputs, torch.exp(0.5 * a)[:, None, None], variance, torch.exp(0.5 * b - 2.0)[:, None, None]
        )
        log_p = log_y + dist.Normal(0.0, 1.0).log_prob(torch.stack((a, b))).sum(0)
        return (log_p.double().logsumexp(0) + 2 * torch.tensor(step).log())[None]


class SparseRegression(Regression):
    """gp.SparseGPRegression, VFE"""

    def __init__(self):
        super().__init__()
        kernel, noise = gp.kernels.RBF(input_dim=1), torch.tensor(0.1)
        self.gp = gp.models.SparseGPRegression(
            self.inputs, self.y, kernel, Xu=self.inputs[::3].clone(), noise=noise, approx="VFE"
        )

    truth = None


class VariationalRegression(Regression):
    """gp.VariationalGP, Gaussian likelihood"""

    SETTINGS, truth = {"epochs": 200, "learning_rate": 0.05}, None

    def __init__(self):
        super().__init__()
        self.gp = gp.models.VariationalGP(
            self.inputs, self.y, gp.kernels.RBF(input_dim=1), gp.likelihoods.Gaussian(torch.tensor(0.1))
        )


class LatentVariables(Regression):
    """gp.GPLVM on gp.GPRegression"""

    SETTINGS = {"epochs": 50, "learning_rate": 0.02}

    def __init__(self):
        self.y = torch.randn(3, 1) @ torch.randn(1, 6) + 0.3 * torch.randn(3, 6)
        base = gp.models.GPRegression(torch.zeros(6, 1), self.y, gp.kernels.RBF(1), noise=torch.tensor(0.1))
        self.lvm = gp.models.GPLVM(base)

    def data(self):
        return self.y.T.contiguous()

    def model(self, x):
        self.lvm.base_model.y = x.T
        return self.lvm.model()

    def guide(self, x):
        return self.lvm.guide()

    truth = None


class CausalEffect:
    """cevae.CEVAE"""

    PACKAGE, SETTINGS = "pyro-ppl", {}

    def __init__(self):
        self.cevae = CEVAE(feature_dim=3, outcome_dist="normal", latent_dim=1, hidden_dim=8, num_layers=2)

    def data(self):
        """Features, treatment and outcome: a table of five columns."""
        z = torch.randn(40, 1)
        x = z + 0.5 * torch.randn(40, 3)
        t = torch.bernoulli(torch.sigmoid(z))
        return torch.cat((x, t, z + t + 0.3 * torch.randn(40, 1)), -1)

    def model(self, table):
        return self.cevae.model(table[:, :3], t=table[:, 3], y=table[:, 4], size=len(table))

    def guide(self, table):
        return self.cevae.guide(table[:, :3], t=table[:, 3], y=table[:, 4], size=len(table))

    def train(self, table):
        x, t, y = table[:, :3], table[:, 3], table[:, 4]
        self.cevae.fit(x, t, y, num_epochs=20, batch_size=20, learning_rate=1e-2, log_every=0)

    def truth(self, table):
        """Quadrature over the latent."""
        x, t, y = table[:, :3], table[:, 3], table[:, 4]
        model, step = self.cevae.model, 0.01
        z = torch.arange(-8.0, 8.0, step)[:, None, None].expand(-1, len(x), 1)
        with torch.no_grad():
            log_p = model.z_dist().log_prob(z) + model.x_dist(z).log_prob(x)
            log_p = log_p + model.t_dist(z).log_prob(t) + model.y_dist(t.expand(z.shape[:2]), z).log_prob(y)
        return log_p.double().logsumexp(0) + torch.tensor(step).log()


class ProfileModel:
    """mue.ProfileHMM"""

    PACKAGE, SETTINGS, PARTICLES = "pyro-ppl", {"epochs": 40, "learning_rate": 0.1}, 500
    LENGTH, LETTERS = 5, 3

    def __init__(self):
        self.hmm = ProfileHMM(latent_seq_length=4, alphabet_length=self.LETTERS)

    def data(self):
        """One-hot sequences, a row of letters each."""
        letters = torch.tensor([0, 1, 2, 0, 1]).expand(12, -1)
        noisy = torch.where(torch.rand(12, self.LENGTH) < 0.2, torch.randint(0, self.LETTERS, letters.shape), letters)
        return torch.nn.functional.one_hot(noisy, self.LETTERS).float().reshape(12, -1)

    def model(self, x):
        return self.hmm.model(x.reshape(len(x), self.LENGTH, self.LETTERS), torch.tensor(1.0))

    def guide(self, x):
        return self.hmm.guide(x.reshape(len(x), self.LENGTH, self.LETTERS), torch.tensor(1.0))


class FactorModel(ProfileModel):
    """mue.FactorMuE"""

    SETTINGS, PARTICLES = {"epochs": 5, "learning_rate": 0.05}, 100
    PAGE = "not asked for: it takes minutes"

    def __init__(self):
        self.mue = FactorMuE(self.LENGTH, self.LETTERS, z_dim=2, latent_seq_length=4)

    def model(self, x):
        one = torch.tensor(1.0)
        return self.mue.model(x.reshape(len(x), self.LENGTH, self.LETTERS), one, one)

    def guide(self, x):
        one = torch.tensor(1.0)
        return self.mue.guide(x.reshape(len(x), self.LENGTH, self.LETTERS), one, one)


class LocalLevel(ForecastingModel):
    """The model of Pyro's tutorial "Forecasting I": a random walk and a regression."""

    def model(self, zero_data, covariates):
        drift_scale = pyro.sample("drift_scale", dist.LogNormal(-2.0, 1.0))
        weight = pyro.sample("weight", dist.Normal(0.0, 0.5).expand([covariates.size(-1)]).to_event(1))
        with self.time_plate:
            drift = pyro.sample("drift", dist.Normal(0.0, drift_scale))
        level = drift.cumsum(-1).unsqueeze(-1)
        noise_scale = pyro.sample("noise_scale", dist.LogNormal(-2.0, 1.0))
        self.predict(dist.Normal(0.0, noise_scale), level + (covariates * weight).sum(-1, keepdim=True))


class Forecast:
    """forecast.ForecastingModel with its AutoNormal"""

    PACKAGE, SETTINGS = "pyro-ppl", {}

    def __init__(self):
        self.model = LocalLevel()
        self.guide = AutoNormal(self.model)

    def data(self):
        time = torch.arange(20.0)
        covariates = torch.stack((time / 10 - 1, torch.sin(time)), -1)
        return (0.1 * torch.randn(20)).cumsum(0)[:, None] + covariates @ torch.tensor([[0.5], [0.3]]), covariates

    def train(self, x):
        Forecaster(self.model, *x, guide=self.guide, num_steps=100, learning_rate=0.1, log_every=0)


class Epidemic:
    """epidemiology.SimpleSIRModel, relaxed, with AutoNormal"""

    PACKAGE, SETTINGS = "pyro-ppl", {"epochs": 50, "learning_rate": 0.02}

    def __init__(self):
        torch.manual_seed(0)
        self.sir = SimpleSIRModel(population=50, recovery_time=4.0, data=torch.tensor([2.0, 3.0, 5.0, 6.0, 4.0]))
        self.sir.relaxed, self.sir.num_quant_bins = True, 1
        with pyro.validation_enabled(False):
            start = self.sir._heuristic(None)
        self.guide = AutoNormal(self.model, init_loc_fn=start, init_scale=0.01)

    def data(self):
        return self.sir.data[:, None]

    def model(self, x):
        self.sir.data = x[:, 0]
        return self.sir._relaxed_model()
