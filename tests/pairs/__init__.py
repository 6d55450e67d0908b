"""Pairs with known evidence, each a function that builds one: `pairs.build("linear_wide")`.

They are built inside a test, so that their numbers have the test's floating-point type.
"""

from collections.abc import Callable
from functools import partial

from .conjugate import banana, beta_binomial, gamma_poisson, uniform
from .discrete import chain, mixture, mixture_conditional, mixture_in_guide, mixture_in_model, nested, parts
from .forms import methods, pyro_modules, stored
from .gaussian import conditional, hierarchy, line, linear, plated
from .pair import Pair
from .project import autoencoder, feed_forward, linear_gaussian, vae_bernoulli, vae_binomial
from .zoo import (
    bounded_latent,
    conditional_vae,
    convolutional,
    counts,
    discrete_vae,
    factor_analysis,
    flow_vae,
    gaussian_mixture,
    hi_vae,
    hierarchical,
    item_response,
    markov,
    miwae,
    mixture_prior,
    not_miwae,
    prod_lda,
    relaxed,
    semi_supervised,
    vamp_prior,
)

# Only pairs whose weights have a finite variance: these can be held to their standard errors.
BUILDERS: dict[str, Callable[[], Pair]] = {
    "linear_exact": linear,
    "linear_narrow": partial(linear, scale=0.8),
    "linear_wide": partial(linear, scale=1.25),
    "linear_shifted": partial(linear, shift=0.6),
    "linear_turned": partial(linear, angle=0.3),
    "line": line,
    "hierarchy": hierarchy,
    "hierarchy_exact": partial(hierarchy, scale=1.0, shift=0.0),
    "plated": plated,
    "conditional": conditional,
    "conditional_exact": partial(conditional, scale=1.0),
    "gamma_poisson": gamma_poisson,
    "gamma_poisson_exact": partial(gamma_poisson, factor=1.0),
    "beta_binomial": beta_binomial,
    "beta_binomial_exact": partial(beta_binomial, factor=1.0),
    "banana": banana,
    "mixture": mixture,
    "mixture_in_model": mixture_in_model,
    "mixture_in_guide": mixture_in_guide,
    "mixture_conditional": mixture_conditional,
    "mixture_conditional_wide": partial(mixture_conditional, scale=1.2),
    "parts": parts,
    "nested": nested,
    "chain": chain,
    "stored": stored,
    "methods": methods,
    "pyro_modules": pyro_modules,
    "linear_gaussian": linear_gaussian,
    "linear_gaussian_diagonal": partial(linear_gaussian, diagonal=True),
    "vae_bernoulli": vae_bernoulli,
    "vae_binomial": vae_binomial,
    "feed_forward": feed_forward,
    "autoencoder": autoencoder,
}

# The pairs of models/ that came after: the laws hold for them, in every layout; other tests of inference, which take
# every pair above, would take too long.
OF_MODELS: dict[str, Callable[[], Pair]] = {
    "factor_analysis": factor_analysis,
    "item_response": item_response,
    "gaussian_mixture": gaussian_mixture,
    "gaussian_mixture_component": partial(gaussian_mixture, component_guide=True),
    "mixture_prior": mixture_prior,
    "vamp_prior": vamp_prior,
    "hierarchical_bottom_up": partial(hierarchical, "bottom-up"),
    "hierarchical_ladder": partial(hierarchical, "ladder"),
    "conditional_vae": conditional_vae,
    "semi_supervised": semi_supervised,
    "miwae": miwae,
    "not_miwae": not_miwae,
    "hi_vae": hi_vae,
    "counts": counts,
    "counts_zero_inflated": partial(counts, zero_inflated=True),
    "convolutional": convolutional,
    "flow_vae": flow_vae,
    "prod_lda": prod_lda,
    "markov": markov,
    "bounded_beta": partial(bounded_latent, "beta"),
    "bounded_gamma": partial(bounded_latent, "gamma"),
    "discrete_vae": discrete_vae,
    "relaxed": relaxed,
}


def build(name: str) -> Pair:
    """The pair of this name, in the default floating-point type."""
    return (BUILDERS | OF_MODELS)[name]()


EXACT = [name for name in BUILDERS if name.endswith("_exact")] + [
    "mixture",
    "mixture_conditional",
    "nested",
    "chain",
    "linear_gaussian",
    "feed_forward",
]
# The programs of a pair that stays, with other numbers: what holds for every pair holds for these with the slow tests.
OTHER_NUMBERS = [
    "linear_narrow",
    "linear_wide",
    "linear_turned",
    "hierarchy_exact",
    "conditional_exact",
    "gamma_poisson_exact",
    "beta_binomial_exact",
    "mixture_conditional_wide",
    "linear_gaussian_diagonal",
    "vae_binomial",
]
# The autoencoder's guide is a point mass: it is trained, and has no evidence.
MEASURED = [name for name in BUILDERS if name != "autoencoder"]
LEARNT = [
    "stored",
    "methods",
    "pyro_modules",
    "linear_gaussian",
    "linear_gaussian_diagonal",
    "vae_bernoulli",
    "vae_binomial",
    "feed_forward",
    "autoencoder",
]
ENUMERATED = [
    "mixture",
    "mixture_in_model",
    "mixture_in_guide",
    "mixture_conditional",
    "mixture_conditional_wide",
    "parts",
    "nested",
    "chain",
]
# Of OF_MODELS.
OF_MODELS_EXACT = ["discrete_vae", "factor_analysis"]
OF_MODELS_ENUMERATED = ["discrete_vae", "gaussian_mixture", "gaussian_mixture_component", "hi_vae", "semi_supervised"]
WITH_GAP = [
    "linear_exact",
    "linear_narrow",
    "linear_wide",
    "linear_shifted",
    "linear_turned",
    "line",
    "hierarchy",
    "plated",
    "conditional",
    "gamma_poisson",
    "beta_binomial",
    "stored",
    "methods",
    "pyro_modules",
]

__all__ = [
    "BUILDERS",
    "ENUMERATED",
    "EXACT",
    "LEARNT",
    "MEASURED",
    "OF_MODELS",
    "OF_MODELS_ENUMERATED",
    "OF_MODELS_EXACT",
    "WITH_GAP",
    "Pair",
    "build",
    "line",
    "linear",
    "uniform",
]
