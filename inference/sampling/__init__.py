"""Draws, and how chains move: Hamiltonian Monte Carlo, annealing, proposals, the search for modes."""

from .aggregate import LogDensity, aggregate
from .annealing import Chains, backward, forward, forward_in_portions
from .bridge_sampling import BridgeEstimate, bridge, effective_draws
from .defensive import ENOUGH, LARGE_PRIOR_SHARE, PRIOR_SHARE, confirms, defensive_weights
from .far_draws import FAR_SHARE, num_far_draws, unreached
from .heavy_draws import HeavyDraws
from .hmc import leapfrog, rotate, transition
from .mixture_start import AnnealingPath, MixtureStart
from .mode_search import Search, effective, search
from .pilot import PILOT_CHAINS, QUICK, SLOW, Pace, Tuning, explore, tune
from .preconditioning import Standardised, standardised
from .resampling import annealed_places
from .search_plan import LEAST_BUDGET, plan
from .student import StudentMixture
from .warmup import Kernel, Walk, covariance_factor, settle, starts, walk, warm_up

__all__ = [
    "ENOUGH",
    "FAR_SHARE",
    "LARGE_PRIOR_SHARE",
    "LEAST_BUDGET",
    "PILOT_CHAINS",
    "PRIOR_SHARE",
    "QUICK",
    "SLOW",
    "AnnealingPath",
    "BridgeEstimate",
    "Chains",
    "HeavyDraws",
    "Kernel",
    "LogDensity",
    "MixtureStart",
    "Pace",
    "Search",
    "Standardised",
    "StudentMixture",
    "Tuning",
    "Walk",
    "aggregate",
    "annealed_places",
    "backward",
    "bridge",
    "confirms",
    "covariance_factor",
    "defensive_weights",
    "effective",
    "effective_draws",
    "explore",
    "forward",
    "forward_in_portions",
    "leapfrog",
    "num_far_draws",
    "plan",
    "rotate",
    "search",
    "settle",
    "standardised",
    "starts",
    "transition",
    "tune",
    "unreached",
    "walk",
    "warm_up",
]
