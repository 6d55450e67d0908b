"""ProdLDA: topics of documents, as products of experts.

    model   z ~ N(0, I),   θ = softmax(z),   x ~ Multinomial(n, softmax(θ B + b))     n the document's length
    guide   q(z | x) = N(μ(x), diag σ(x)²)

x counts the words of a document; row k of B says which words topic k favours, over and above their frequency b. The
mixing is of logits, not of probabilities as in latent Dirichlet allocation. log p(x | n) counts the orders of words:
log n! − Σ_j log x_j! + Σ_j x_j log p_j. Data drawn from the model have the lengths of the documents given.
"Autoencoding Variational Inference For Topic Models" (Srivastava & Sutton, 2017), arXiv:1703.01488; without their batch
normalisation, under which a document's density would depend on the others.
"""

from typing import Any, ClassVar, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .likelihoods import Poisson
from .networks import MLP, whole_number


class ProdLDA(nn.Module):
    """A topic model with an amortised Gaussian guide.

    Sites: the latent `z`, event shape `(num_topics,)`, and the observation `x`, event shape `(num_features,)`, both in
    the plate `data` at dim −1.

    Args:
        num_features: the number of words in the vocabulary.
        num_topics: K.
        hidden: widths of the hidden layers of the guide's network.
        nonlinearity: the module class between its layers.

    Raises:
        OptionError: a size is not a positive whole number.

    Example:
        >>> x = torch.tensor([[3.0, 0.0, 5.0], [0.0, 1.0, 2.0]])
        >>> ProdLDA.for_data(x, num_topics=2).topics().shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        num_features: int,
        num_topics: int = 10,
        hidden: tuple[int, ...] = (100,),
        nonlinearity: type[nn.Module] = nn.Tanh,
    ):
        """Make the pair; the class says what its arguments are."""
        super().__init__()
        K, D = whole_number("num_topics", num_topics), whole_number("num_features", num_features)
        self.topic_logits = nn.Parameter(torch.randn(K, D))
        self.word_logits = nn.Parameter(torch.zeros(D))
        self.encoder = MLP(D, hidden, 2 * K, nonlinearity)

    def model(self, x: Tensor) -> Tensor:
        """The generative program, p(z) p(x | z, n).

        Args:
            x: counts, `(num_data, num_features)`.

        Returns:
            x; under `poutine.uncondition`, documents of the same lengths.
        """
        pyro.module("prod_lda", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(self.topic_logits)), 1.0).to_event(1))
            logits = z.softmax(-1) @ self.topic_logits + self.word_logits
            return pyro.sample("x", Words(x.sum(-1), logits), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """The proposal, q(z | x).

        Args:
            x: as the model takes it.

        Returns:
            The draw of z, `(num_data, num_topics)`.
        """
        pyro.module("prod_lda", self)
        loc, raw_scale = self.encoder(x.log1p()).chunk(2, dim=-1)
        with pyro.plate("data", len(x)):
            scale = F.softplus(raw_scale) + torch.finfo(x.dtype).eps
            return pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    @classmethod
    def for_data(cls, x: Tensor, **options: Any) -> Self:
        """A pair whose words start with their frequencies in x.

        Args:
            x: counts, `(num_data, D)`.
            **options: further arguments of the constructor.

        Returns:
            The pair, on the device and in the floating-point type of x.

        Raises:
            DataError: x holds something else than counts.
            OptionError: an option has a value that cannot be used.
        """
        Poisson().check(x)
        pair = cls(x.shape[1], **options).to(x)
        with torch.no_grad():
            pair.word_logits.copy_(Poisson().initial_bias(x))
        return pair

    def topics(self) -> Tensor:
        """The word probabilities of each topic alone, `(num_topics, num_features)`."""
        return (self.topic_logits + self.word_logits).softmax(-1)


class Words(dist.TorchDistribution):
    """Multinomial counts of words with a length for each document.

    Args:
        length: n, `(...)`.
        logits: of the words, `(..., num_features)`.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "length": dist.constraints.nonnegative_integer,
        "logits": dist.constraints.real_vector,
    }
    support = dist.constraints.independent(dist.constraints.nonnegative_integer, 1)

    def __init__(self, length: Tensor, logits: Tensor, validate_args: bool | None = None):
        batch = torch.broadcast_shapes(length.shape, logits.shape[:-1])
        self.length = length.expand(batch)
        self.logits = logits.expand(*batch, -1)
        super().__init__(batch, logits.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """n p."""
        return self.length.unsqueeze(-1) * self.logits.softmax(-1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Words":
        """The same distribution of another batch shape."""
        return Words(self.length.expand(batch_shape), self.logits.expand(*batch_shape, -1), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log n! − Σ log x_j! + Σ x_j log p_j in nats, −inf where the counts do not sum to n."""
        log_p = torch.lgamma(self.length + 1) - torch.lgamma(value + 1).sum(-1)
        log_p = log_p + (value * self.logits.log_softmax(-1)).sum(-1)
        return torch.where(value.sum(-1) == self.length, log_p, -torch.inf)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Documents of the given lengths, one word after another: a binomial draw of what the words before left."""
        p = self.logits.softmax(-1).expand(*sample_shape, *self.logits.shape)
        left, rest = self.length.expand(p.shape[:-1]).clone(), torch.ones_like(p[..., 0])
        counts = torch.zeros_like(p)
        for j in range(p.shape[-1] - 1):
            share = (p[..., j] / rest.clamp(min=torch.finfo(p.dtype).tiny)).clamp(0, 1)
            counts[..., j] = torch.binomial(left, share)
            left, rest = left - counts[..., j], rest - p[..., j]
        counts[..., -1] = left
        return counts
