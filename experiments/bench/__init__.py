"""How fast steps of SVI, log weights and annealed chains are, beside peers, and how time and memory grow.

``python -m ppvae.experiments.bench`` (``make bench``) runs all of it:

    training_steps, step_pairs              a step of SVI, of the VAE and of other pairs
    evidence_speed                          log weights, transitions of annealing, densities by layout
    plain_torch, numpyro_peer, pythae_peer  the same work by others
    side_by_side                            contenders in turns; medians and quartiles
    growth_curves, peak_memory              seconds and MiB against draws, data, latent size, width
    operator_profiles                       the operators that take the time
    bench_record, bench_page                the file that a run leaves, and the page made from it

:mod:`.several_processes` is a bench of its own.
"""
