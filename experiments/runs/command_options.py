"""The options of `ppvae check`, and of the commands that take an earlier run.

The options of a command, with types, defaults and meanings, are written here once: the command line builds its parser
from the class, and the function that does the work takes an instance. Those of `ppvae run` are
:class:`ppvae.storage.Settings`. Nothing here imports torch, so that `--help` is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ppvae.errors import OptionError
from ppvae.storage import Method, check_count

Split = Literal["test", "validation"]  # None takes the test data, or all where all were trained on


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """Who computes: this process, or several by shards that are kept in the run directory.

    Args:
        workers: processes that compute shards of the data; null computes all at once in this process. The result has
            the same bits with any number of them, and the same command goes on where it was interrupted.
        executor: who computes the shards instead: tcp://host:8786, the address of a Dask scheduler; slurm; or
            module:function, which returns a concurrent.futures.Executor.
        shard_size: data in a shard.
    """

    workers: int | None = None
    executor: str | None = None
    shard_size: int = 100

    @property
    def sharded(self) -> bool:
        """Whether shards were asked for."""
        return self.workers is not None or self.executor is not None

    def check(self) -> None:
        """Raise OptionError where a count cannot be used."""
        check_count("shard_size", self.shard_size)
        if self.workers is not None:
            check_count("workers", self.workers)


@dataclass(frozen=True)
class EvaluateOptions(ShardOptions):
    """How log p(x) of an earlier run is estimated again.

    Args:
        method: auto uses, for each datum, the cheapest estimator that reaches the tolerance. importance uses draws of
            the guide. ais uses annealed chains from the guide to the posterior.
        tolerance: half the width of a datum's 95 % interval, in nats. For auto.
        eval_minutes: stop after so many minutes. The data are taken in random order. null evaluates all data. For auto.
        num_particles: draws of the guide per datum, for the ELBO, the K-sample bounds and k-hat, and for log p(x) with
            importance. null takes the number of the run.
        num_chains: chains per datum. For ais.
        num_distributions: distributions between the guide and the posterior. For ais.
        max_eval: evaluate on so many data only, evenly spaced. null takes the number of the run.
        split: the part of the data. null takes the test data, or all data if none are held out.
        seed: the seed of the draws. null takes the seed of the run.
    """

    method: Method = "auto"
    tolerance: float = 0.1
    eval_minutes: float | None = None
    num_particles: int | None = None
    num_chains: int = 32
    num_distributions: int = 200
    max_eval: int | None = None
    split: Split | None = None
    seed: int | None = None

    def check(self) -> None:
        """Raise OptionError where a number cannot be used; the others are checked with the settings of the run."""
        super().check()
        check_count("num_chains", self.num_chains)
        check_count("num_distributions", self.num_distributions)
        if self.sharded and self.eval_minutes is not None:
            raise OptionError("eval_minutes has no meaning for shards, all of which are computed: give max_eval.")


@dataclass(frozen=True)
class CertifyOptions(ShardOptions):
    """How log p(x) of an earlier run is bounded from both sides.

    Args:
        split: the part of the data. model takes data drawn from the model, for which the upper bound is certified too.
            null takes the test data, or all data if none are held out.
        num_data: the number of data, evenly spaced.
        confidence: the confidence of the bounds of the mean.
        width: the width of the mean's interval at which the computation stops, in nats.
        start: where the annealed chains start.
        num_chains: chains per datum. null takes 16 for data drawn from the model, and at least 32 for others.
        max_distributions: the largest number of distributions between the start and the posterior.
        seed: the seed of all draws. null takes the seed of the run.
    """

    split: Literal["test", "validation", "model"] | None = None
    num_data: int = 100
    confidence: float = 0.95
    width: float = 0.1
    start: Literal["guide", "prior"] = "guide"
    num_chains: int | None = None
    max_distributions: int = 2048
    seed: int | None = None

    def check(self) -> None:
        """Raise OptionError where a count cannot be used; inference checks the others."""
        super().check()
        check_count("num_data", self.num_data)


@dataclass(frozen=True)
class AttributeOptions:
    """How the gap of an earlier run is split into its causes.

    Args:
        split: the part of the data. null takes the test data, or all data if none are held out.
        num_data: the number of data, evenly spaced.
        tolerance: the tolerance of log p(x), in nats.
        steps: the largest number of steps in the optimisation of a datum's own guide, for each family of guides.
        seed: the seed of all draws. null takes the seed of the run.
    """

    split: Split | None = None
    num_data: int = 100
    tolerance: float = 0.1
    steps: int = 2000
    seed: int | None = None

    def check(self) -> None:
        """Raise OptionError where a count cannot be used; inference checks the others."""
        check_count("num_data", self.num_data)


@dataclass(frozen=True)
class MendOptions:
    """How the guide of an earlier run is mended, and how the gap is measured before and after.

    Args:
        num_data: the number of test data on which the gap is measured, evenly spaced.
        tolerance: the tolerance of log p(x), in nats.
        steps: gradient steps of each attempt at a better guide.
        attribution_steps: the largest number of steps in the optimisation of a datum's own guide, for each family of
            guides.
        train_model: train the model too, with a KL term whose weight rises slowly. This helps where latent units have
            collapsed. log p(x) is then that of another model.
        seed: the seed of all draws. null takes the seed of the run.
    """

    num_data: int = 100
    tolerance: float = 0.1
    steps: int = 2000
    attribution_steps: int = 1000
    train_model: bool = False
    seed: int | None = None

    def check(self) -> None:
        """Raise OptionError where a count cannot be used; inference checks the others."""
        check_count("num_data", self.num_data)
        check_count("attribution_steps", self.attribution_steps)


@dataclass(frozen=True)
class CollapseOptions:
    """How the causes of the unused latent units of an earlier run are found.

    Args:
        steps: gradient steps of each trial.
        learning_rate: of Adam at first; it falls to zero by a cosine.
        kl_weight: weight of the KL term that the pair was trained with in the end; `ppvae run` trains with 1.
        seed: of the trainings and draws; null takes that of the run.
    """

    steps: int = 1000
    learning_rate: float = 1e-3
    kl_weight: float = 1.0
    seed: int | None = None

    def check(self) -> None:
        """Raise OptionError where a count cannot be used; inference checks the others."""
        check_count("steps", self.steps)


@dataclass(frozen=True)
class AssessOptions(ShardOptions):
    """How the guide of an earlier run is assessed as a posterior.

    Args:
        split: the part of the data. null takes the test data, or all data if none are held out.
        num_data: the number of data that get reference draws of the posterior, evenly spaced.
        num_unit_data: the number of data over which latent units and calibration are examined, evenly spaced.
        num_draws: reference draws of each of the 16 chains of a datum.
        warm_up: transitions of each chain before its draws are kept.
        num_simulations: data drawn from the model, for the test of calibration.
        seed: the seed of all draws. null takes the seed of the run.
    """

    split: Split | None = None
    num_data: int = 20
    num_unit_data: int = 500
    num_draws: int = 500
    warm_up: int = 300
    num_simulations: int = 1000
    seed: int | None = None

    def check(self) -> None:
        """Raise OptionError where a count cannot be used."""
        super().check()
        check_count("num_data", self.num_data)
        check_count("num_unit_data", self.num_unit_data, least=3)
        for name in ("num_draws", "warm_up", "num_simulations"):
            check_count(name, getattr(self, name), least=20)


@dataclass(frozen=True)
class CheckOptions:
    """What a pair is checked on, and how it is made; the words of :class:`ppvae.storage.Settings`.

    Args:
        data: the data to check the pair on, as `ppvae run --data` takes them. auto takes the example data of the pair.
        context: files of what the programs take after x, as `ppvae run --context` takes them.
        label_column: the column of the table that holds labels. It is not given to the programs.
        drop_columns: columns to leave out, as in `--drop_columns id,date`.
        context_columns: columns that the programs take after x, as in `--context_columns age,sex`.
        split_column: the column that says train, validation or test for each row.
        standardise: bring each feature to mean 0 and standard deviation 1.
        pair_args: arguments of the pair.
        data_dir: the folder that holds the files of mnist and binarized_mnist.
        likelihood: p(x|z), for a pair that takes one.
        likelihood_args: arguments of the likelihood.
    """

    data: str = "auto"
    context: list[str] = field(default_factory=list)
    label_column: str | None = None
    drop_columns: list[str] = field(default_factory=list)
    context_columns: list[str] = field(default_factory=list)
    split_column: str | None = None
    standardise: bool = False
    pair_args: dict[str, Any] = field(default_factory=dict)
    data_dir: str | None = None
    likelihood: str | None = None
    likelihood_args: dict[str, Any] = field(default_factory=dict)
