"""Records of options that belong together, each for one argument of a function.

A record holds only what its function uses, checks itself when it is made, and never changes; its defaults are those of
the function. A bad value is refused in one sentence that names the field (:mod:`.options`).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, get_args

from .options import instance_of, one_of, positive_number, whole_number

Start = Literal["guide", "prior"]
Schedule = Literal["adaptive", "sigmoid", "linear"]
Source = Literal["guide", "psis", "exact"]
MendingStepName = Literal["more steps", "correction", "gradient steps", "full covariance", "flow", "mixture", "defence"]
Strategy = Literal["auto", "ddp", "ddp_spawn", "ddp_fork", "ddp_notebook"]

# Short trajectories: at the same cost, more temperatures bring more than longer moves at each.
LEAPFROG_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """How an ELBO is climbed for every datum by itself, in ``refine`` and ``attribute_gap``.

    Attributes:
        num_particles: draws per datum and step of the gradient.
        steps: the budget of a datum in each family; it stops sooner once it has converged, which takes two rounds of
            200 steps where there is something to gain.
        learning_rate: the full length of a step, in standard deviations of what is moved.
        tolerance: a datum has converged when a round changes its ELBO by less than this, in nats.

    Raises:
        OptionError: a field has a value that cannot be used.

    Example:
        >>> Optimiser(steps=500)
        Optimiser(num_particles=16, steps=500, learning_rate=0.05, tolerance=0.05)
    """

    num_particles: int = 16
    steps: int = 2000
    learning_rate: float = 0.05
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        _keep(
            self,
            num_particles=whole_number("num_particles", self.num_particles),
            steps=whole_number("steps", self.steps),
            learning_rate=positive_number("learning_rate", self.learning_rate),
            tolerance=positive_number("tolerance", self.tolerance, "nats"),
        )


@dataclass(frozen=True, kw_only=True)
class Annealing:
    """How the chains of ``annealed_evidence`` are led from their start to the posterior.

    Attributes:
        start: where the chains begin: ``"guide"``, usually much nearer to the posterior, or ``"prior"``.
        schedule: of the temperatures: ``"adaptive"`` (steps of equal thermodynamic length, per datum, from a pilot
            run), ``"sigmoid"`` or ``"linear"``.
        num_steps: leapfrog steps of the transition between two distributions.

    Raises:
        OptionError: a field has a value that cannot be used.

    Example:
        >>> Annealing(start="prior")
        Annealing(start='prior', schedule='adaptive', num_steps=3)
    """

    start: Start = "guide"
    schedule: Schedule = "adaptive"
    num_steps: int = LEAPFROG_STEPS

    def __post_init__(self) -> None:
        one_of("start", self.start, get_args(Start))
        one_of("schedule", self.schedule, get_args(Schedule))
        _keep(self, num_steps=whole_number("num_steps", self.num_steps))


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What ``certify`` may draw, and how.

    Attributes:
        start: where chains begin: ``"guide"``, usually much nearer to the posterior, or ``"prior"``.
        num_chains: annealed chains per datum. None: 16 on data drawn from the model; on data that were given 32, or
            more where the data are few, so that there are 256 in all.
        max_distributions: the budget: how many distributions may lie between the start and the posterior. With 1 there
            is importance sampling alone.
        num_steps: leapfrog steps of the transition between two distributions.
        num_twins: data drawn from the model beside ``x``, at whose exact posterior draws it shows whether the chains
            miss a part of the posterior. None: 32, or 0 where the unit is the data set, since each is annealed by
            itself.

    Raises:
        OptionError: a field has a value that cannot be used.

    Example:
        >>> Sampling(max_distributions=1)
        Sampling(start='guide', num_chains=None, max_distributions=1, num_steps=3, num_twins=None)
    """

    start: Start = "guide"
    num_chains: int | None = None
    max_distributions: int = 2048
    num_steps: int = LEAPFROG_STEPS
    num_twins: int | None = None

    def __post_init__(self) -> None:
        one_of("start", self.start, get_args(Start))
        _keep(
            self,
            num_chains=None if self.num_chains is None else whole_number("num_chains", self.num_chains),
            max_distributions=whole_number("max_distributions", self.max_distributions),
            num_steps=whole_number("num_steps", self.num_steps),
            num_twins=None if self.num_twins is None else whole_number("num_twins", self.num_twins, least=0),
        )


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """Which steps ``mend`` tries, and when it keeps one.

    Attributes:
        only: names of the steps that are tried, in this order. None: those that the attribution of the gap asks for.
        standard_errors: how many of them a gain must be.
        rounds: how often a step is tried at most, while it gains 0.1 nats.

    Raises:
        OptionError: a field has a value that cannot be used.

    Example:
        >>> Attempts(only=("full covariance",))
        Attempts(only=('full covariance',), standard_errors=2.0, rounds=3)
    """

    only: tuple[MendingStepName, ...] | None = None
    standard_errors: float = 2.0
    rounds: int = 3

    def __post_init__(self) -> None:
        names = self.only if isinstance(self.only, (tuple, list)) and self.only else (self.only,)
        known = tuple(one_of("only", name, get_args(MendingStepName)) for name in names if self.only is not None)
        errors = positive_number("standard_errors", self.standard_errors)
        _keep(self, only=known or None, standard_errors=errors, rounds=whole_number("rounds", self.rounds))


@dataclass(frozen=True)
class DrawsFrom:
    """Draws of the posterior that ``to_datatree`` makes, and how many.

    Attributes:
        source: ``"guide"``; ``"psis"``, ten times as many draws of the guide, resampled for each datum by
            Pareto-smoothed importance weights (they repeat: ``sample_stats`` says in ``importance_ess`` how many they
            are worth, and in ``pareto_k`` whether to trust them); or ``"exact"``, from ``posterior(x)`` of the object
            that the model is a method of.
        num_draws: draws per datum and chain.
        num_chains: into how many chains the draws are cut.

    Raises:
        OptionError: a field has a value that cannot be used.

    Example:
        >>> DrawsFrom("psis", num_draws=100)
        DrawsFrom(source='psis', num_draws=100, num_chains=4)
    """

    source: Source = "guide"
    _: KW_ONLY
    num_draws: int = 250
    num_chains: int = 4

    def __post_init__(self) -> None:
        one_of("source", self.source, get_args(Source))
        _keep(
            self,
            num_draws=whole_number("num_draws", self.num_draws),
            num_chains=whole_number("num_chains", self.num_chains),
        )


PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true")  # those of Fabric for any machine


@dataclass(frozen=True, kw_only=True)
class Compute:
    """The processes that ``fit`` trains on, as Lightning Fabric starts them.

    Attributes:
        devices: processes on each machine: one a GPU, or so many on the processor.
        num_nodes: machines. Each must run the same script: Slurm's ``srun`` does, and ``torchrun``.
        strategy: how processes come about. ``"ddp"`` runs the script again in each process, ``"ddp_spawn"`` and
            ``"ddp_fork"`` (``"ddp_notebook"``) make processes for the training alone; ``"auto"`` takes ``"ddp"`` in a
            script and ``"ddp_notebook"`` in a notebook.
        precision: Lightning Fabric's, such as ``"bf16-mixed"``; None takes the ``precision`` of ``fit``.
        timeout: after so many seconds without a word from another process a training ends.

    Raises:
        OptionError: a field has a value that cannot be used.

    Example:
        >>> Compute(devices=2).num_processes
        2
    """

    devices: int = 1
    num_nodes: int = 1
    strategy: Strategy = "auto"
    precision: str | None = None
    timeout: float = 600.0

    def __post_init__(self) -> None:
        one_of("strategy", self.strategy, get_args(Strategy))
        if self.precision is not None:
            one_of("precision", self.precision, PRECISIONS)
        _keep(
            self,
            devices=whole_number("devices", self.devices),
            num_nodes=whole_number("num_nodes", self.num_nodes),
            timeout=positive_number("timeout", self.timeout, "seconds"),
        )

    @property
    def num_processes(self) -> int:
        """Processes in all."""
        return self.devices * self.num_nodes


def record_of(name: str, value: Any, kind: Any) -> Any:
    """``value`` if it is a record of a kind.

    Raises:
        OptionError: it is not.
    """
    return instance_of(name, value, kind, f"the record ppvae.inference.{kind.__name__}(...)")


def _keep(record: Any, **values: Any) -> None:
    """Set fields of a frozen record, while it is made, to the plain numbers that were found in them."""
    for name, value in values.items():
        object.__setattr__(record, name, value)
