"""The options of `ppvae check`, and of the commands that take an earlier run.

The options of a command, with types, defaults and meanings, are written here once: the command line builds its parser
from the class, and the function that does the work takes an instance. Those of `ppvae run` are
:class:`ppvae.storage.Settings`. Nothing here imports torch, so that `--help` is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ppvae.storage import Method, check_count

Split = Literal["test", "validation"]  # None takes the test data, or all where all were trained on


@dataclass(frozen=True)
class EvaluateOptions:
    """How log p(x) of an earlier run is estimated again.

    Args:
        method: auto (for each datum the cheapest estimator that reaches the tolerance), importance (draws of the
            guide), or ais (annealed chains from the guide to the posterior).
        tolerance: of auto, half the width of a datum's 95 % interval, in nats.
        eval_minutes: of auto, evaluate on as many data, drawn at random, as so many minutes allow; null takes all.
        num_particles: draws of the guide per datum, for the ELBO, the K-sample bounds and k-hat; with importance for
            log p(x) too. null takes those of the run.
        num_chains: of ais, per datum.
        num_distributions: of ais, from the guide to the posterior.
        max_eval: evaluate on so many data only, evenly spaced over all; null takes those of the run.
        split: the data to evaluate on; null takes the test data, or all where none are held out.
        seed: of the draws; null takes that of the run.
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
        check_count("num_chains", self.num_chains)
        check_count("num_distributions", self.num_distributions)


@dataclass(frozen=True)
class CertifyOptions:
    """How log p(x) of an earlier run is bounded from both sides.

    Args:
        split: the data; on model, data drawn from the model, the upper bound is certified too; null takes the test
            data, or all where none are held out.
        num_data: how many data, evenly spaced over all.
        confidence: with which the bounds of the mean hold.
        width: of the mean's interval, in nats; no more is computed once it is reached.
        start: of the annealed chains.
        num_chains: per datum; null takes 16 on data drawn from the model, and at least 32 on others.
        max_distributions: the largest number of distributions between the start and the posterior.
        seed: of all draws; null takes that of the run.
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
        check_count("num_data", self.num_data)


@dataclass(frozen=True)
class AttributeOptions:
    """How the gap of an earlier run is split into its causes.

    Args:
        split: the data; null takes the test data, or all where none are held out.
        num_data: how many data, evenly spaced over all.
        tolerance: to which log p(x) is estimated, in nats.
        steps: the largest number of steps of a datum's local optimisation, in each family of guides.
        seed: of all draws; null takes that of the run.
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
        num_data: test data that the gap is measured on, evenly spaced over all.
        tolerance: to which log p(x) is estimated, in nats.
        steps: gradient steps of each attempt at a better guide.
        attribution_steps: the largest number of steps of a datum's local optimisation, in each family of guides.
        train_model: whether the model may be trained on too, with a KL term that is let in slowly, as where latents
            have collapsed; log p(x) is then that of another model.
        seed: of all draws; null takes that of the run.
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
class AssessOptions:
    """How the guide of an earlier run is assessed as a posterior.

    Args:
        split: the data; null takes the test data, or all where none are held out.
        num_data: data for which reference draws of the posterior are made, evenly spaced over all.
        num_simulations: data drawn from the model, for calibration.
        seed: of all draws; null takes that of the run.
    """

    split: Split | None = None
    num_data: int = 20
    num_simulations: int = 1000
    seed: int | None = None

    def check(self) -> None:
        """Raise OptionError where a count cannot be used."""
        check_count("num_data", self.num_data)
        check_count("num_simulations", self.num_simulations, least=20)


@dataclass(frozen=True)
class CheckOptions:
    """What a pair is checked on, and how it is made; the words of :class:`ppvae.storage.Settings`.

    Args:
        data: what to run it on, as `ppvae run --data` takes it; auto takes what the pair names as its example.
        context: files of what the programs take after x, as `ppvae run --context` takes them.
        label_column: column of the table that is no datum.
        drop_columns: columns to be left out, as in `--drop_columns id,date`.
        context_columns: columns that the programs take after x, as in `--context_columns age,sex`.
        split_column: column that says train, validation or test.
        standardise: bring each feature to mean 0 and standard deviation 1.
        pair_args: arguments of the pair.
        data_dir: folder that already holds the files of mnist and binarized_mnist.
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
