"""The only room that runs Pyro programs: a pair on data, its parameters, and what is wrong with it."""

from .arguments import Arguments, Batch, as_batch, finite_batch, map_tensors
from .bijections import bijection_to
from .changed_programs import BlindModel, CutGuide, FreedNoise, cut, has_noise_scale, reads_its_data
from .check import Findings, check, fatal_findings
from .contract import ContractError, Finding
from .coordinate_choice import in_guide_coordinates
from .density_code import Evaluated
from .devices import where_parameters_are
from .distributions import opened, without_zuko
from .entries import Entries
from .evaluations import Compile, Evaluations
from .failures import (
    FailedRun,
    described,
    failed_run,
    in_a_program,
    programs_named,
    raised_by_a_program,
    stated_named,
)
from .layout import why_slow
from .log_densities import KnowsGradients
from .log_terms import to_u
from .marginals import (
    UnitDraws,
    Which,
    cross_log_density,
    guide_order,
    has_parents,
    is_masked,
    own_log_density,
    unit_draws,
    unit_indices,
    why_unknown,
)
from .memory import chunks, growth
from .modes import buffers_kept, evaluation_mode, owner, reachable_modules
from .objective import elbo_for
from .pair import Densities, Pair, Terms
from .parameters import (
    MODULE_DIVIDER,
    ParameterValues,
    Trained,
    named_parameters,
    own_parameters,
    restored,
    trained_parameters,
    untrained,
)
from .predictive import Predicted, demand_masked, demand_prediction, demand_prior, given_context, predicted
from .programs import Programs
from .randomness import generator_kept, own_randomness, seeded
from .replay import measured_again, prepare, trainable
from .sites import Frame, Site, Values
from .traces import FAILURES, Program, plain_traces, sample_sites, site_log_prob
from .two_part_mixture import LastDraw, TwoPartMixture
from .unconstrained import Point, demand_continuum, evaluate, has_continuum

__all__ = [
    "FAILURES",
    "MODULE_DIVIDER",
    "Arguments",
    "Batch",
    "BlindModel",
    "Compile",
    "ContractError",
    "CutGuide",
    "Densities",
    "Entries",
    "Evaluated",
    "Evaluations",
    "FailedRun",
    "Finding",
    "Findings",
    "Frame",
    "FreedNoise",
    "KnowsGradients",
    "LastDraw",
    "Pair",
    "ParameterValues",
    "Point",
    "Predicted",
    "Program",
    "Programs",
    "Site",
    "Terms",
    "Trained",
    "TwoPartMixture",
    "UnitDraws",
    "Values",
    "Which",
    "as_batch",
    "bijection_to",
    "buffers_kept",
    "check",
    "chunks",
    "cross_log_density",
    "cut",
    "demand_continuum",
    "demand_masked",
    "demand_prediction",
    "demand_prior",
    "described",
    "elbo_for",
    "evaluate",
    "evaluation_mode",
    "failed_run",
    "fatal_findings",
    "finite_batch",
    "generator_kept",
    "given_context",
    "growth",
    "guide_order",
    "has_continuum",
    "has_noise_scale",
    "has_parents",
    "in_a_program",
    "in_guide_coordinates",
    "is_masked",
    "map_tensors",
    "measured_again",
    "named_parameters",
    "opened",
    "own_log_density",
    "own_parameters",
    "own_randomness",
    "owner",
    "plain_traces",
    "predicted",
    "prepare",
    "programs_named",
    "raised_by_a_program",
    "reachable_modules",
    "reads_its_data",
    "restored",
    "sample_sites",
    "seeded",
    "site_log_prob",
    "stated_named",
    "to_u",
    "trainable",
    "trained_parameters",
    "unit_draws",
    "unit_indices",
    "untrained",
    "where_parameters_are",
    "why_slow",
    "why_unknown",
    "without_zuko",
]
