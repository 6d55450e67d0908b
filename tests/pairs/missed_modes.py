"""The pairs whose guide misses modes, as pairs of the tests."""

from ppvae.experiments.missed_mode_pairs import build

from .pair import Pair


def missed_modes(name: str, num_data: int, seed: int = 0) -> Pair:
    """The pair of this name; see :mod:`ppvae.experiments.missed_mode_pairs`."""
    made = build(name, num_data, seed)
    x, *context = made.data
    return Pair(made.model, made.guide, x, tuple(context), log_evidence=lambda x, *_: made.log_evidence(x))
