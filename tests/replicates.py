"""Independent estimates of one evidence."""

from pairs import Pair

from ppvae.inference import Evidence, importance_evidence


def replicates(
    pair: Pair, times: int, num_particles: int, seed: int, memory_mb: float = 64.0
) -> tuple[Evidence, float]:
    """Estimates of log p of the pair's first datum, `times` over, each from particles of its own; and the truth."""
    many = pair.replicated(times)
    evidence = importance_evidence(many.model, many.guide, many.data, num_particles, seed=seed, memory_mb=memory_mb)
    return evidence, pair.rows([0]).truth.item()
