"""Bad values for every argument of every public function and record of options of inference, by the argument's kind.

A value that a function accepts is in no list: an int for a float, a numpy number or a tensor without dimension for a
number, an infinite ``checkpoint_seconds`` (the checkpoint is then written at the end alone), a batch size above the
number of data, a ``memory_mb`` of 2**40, None where it is the default, and whatever comes with x as context.
"""

import inspect
import math
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO

from ppvae import inference
from ppvae.errors import PpvaeError
from ppvae.inference import Annealing, Attempts, Compute, DrawsFrom, Optimiser, Sampling


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z[..., None].expand(*z.shape, 2), 1.0).to_event(1), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        loc = pyro.param("loc", torch.tensor(0.0))
        pyro.sample("z", dist.Normal(loc + x.mean(-1) / 2, 0.6))


def data():
    return torch.tensor([[0.5, 0.1], [-0.3, 0.8], [1.2, 0.4], [0.0, -0.7]])


def sparse():
    return torch.eye(4).to_sparse()


class Thing:
    """An object of no use."""


# Values are made when they are tried, in the test's floating-point type.
Values = dict[str, Callable[[], Any]]

ANYTHING: Values = {
    "text": lambda: "5",
    "list": lambda: [5],
    "object": Thing,
    "class": lambda: Thing,
    "dict": lambda: {"a": 1},
    "sparse": sparse,
    "empty": lambda: torch.empty(0),
    "vector": lambda: torch.tensor([1.0, 2.0]),
    "array": lambda: np.zeros(3),
    "bytes": lambda: b"5",
}
NONE: Values = {"None": lambda: None}
NUMBERS: Values = {
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "-inf": lambda: -math.inf,
    "nan tensor": lambda: torch.tensor(math.nan),
    "True": lambda: True,
    "numpy True": lambda: np.True_,
    "complex": lambda: 1j,
    "-1": lambda: -1,
}
COUNT = ANYTHING | NONE | NUMBERS | {"0": lambda: 0, "2.5": lambda: 2.5, "5.0": lambda: 5.0, "2**40": lambda: 2**40}
POSITIVE = (
    ANYTHING | NONE | NUMBERS | {"0": lambda: 0.0, "tensor -1": lambda: torch.tensor(-1.0), "10**400": lambda: 10**400}
)
BETWEEN = POSITIVE | {"1": lambda: 1.0, "2**40": lambda: 2**40}
NOT_NEGATIVE = {name: value for name, value in POSITIVE.items() if name not in ("0", "inf", "10**400")}
SEED = ANYTHING | NUMBERS | {"1.5": lambda: 1.5, "5.0": lambda: 5.0, "2**32": lambda: 2**32, "10**400": lambda: 10**400}
FLAG = ANYTHING | NONE | {"1": lambda: 1, "0": lambda: 0, "nan": lambda: math.nan}
WORD = ANYTHING | NONE | {"nonsense": lambda: "nonsense", "": lambda: "", "3": lambda: 3, "nan": lambda: math.nan}
FILE = {name: value for name, value in ANYTHING.items() if name != "text"} | {
    "3": lambda: 3,
    "True": lambda: True,
    "nan": lambda: math.nan,
    "": lambda: "",
    "null byte": lambda: "a\0b",
    "folder": lambda: ".",
}
RECORD = ANYTHING | {"3": lambda: 3, "True": lambda: True, "nan": lambda: math.nan}
# Any record but that of the function: what it does not use cannot be given to it.
RECORDS: Values = {
    "class of a record": lambda: Optimiser,
    "Annealing": Annealing,
    "Attempts": Attempts,
    "Compute": Compute,
    "DrawsFrom": DrawsFrom,
    "Optimiser": Optimiser,
    "Sampling": Sampling,
}


def _but(kind: str) -> Values:
    """Every record but one of a kind."""
    return {name: value for name, value in RECORDS.items() if name != kind}


UNCALLABLE = {name: value for name, value in ANYTHING.items() if name != "class"} | {
    "3": lambda: 3,
    "True": lambda: True,
    "nan": lambda: math.nan,
}
# These can be called, and fail or are no programs; the pair is then named, and not the argument.
FAILING: Values = {
    "no arguments": lambda: lambda: None,
    "no sites": lambda: lambda x: None,
    "divides": lambda: lambda x: 1 / 0,
    "class": lambda: Thing,
    "missing key": lambda: lambda x: {"y": x}["z"],
    "says nothing": lambda: _says_nothing,
}
DATA = ANYTHING | NONE | {
    "3": lambda: 3,
    "nan": lambda: math.nan,
    "[]": lambda: [],
    "()": lambda: (),
    "(None,)": lambda: (None,),
    "numbers": lambda: [1.0, 2.0],
    "no dimension": lambda: torch.tensor(1.0),
    "complex": lambda: torch.zeros(4, 2, dtype=torch.complex64),
    "infinite": lambda: torch.full((4, 2), math.inf),
    "sparse context": lambda: (data(), sparse()),
    "sparse in a context": lambda: (data(), {"graph": sparse()}),
}  # fmt: skip
del DATA["vector"]  # one number each: data of another shape, which are below
# Arrays and lists of numbers are data too, of another shape here.
ROWS = {name: value for name, value in DATA.items() if name not in ("array", "list", "numbers")}
# Data that are what data must be, but not of this pair.
MISFITS: Values = {
    "vector": lambda: torch.tensor([1.0, 2.0, 3.0]),
    "other width": lambda: torch.zeros(4, 7),
    "infinite context": lambda: (data(), torch.full((4,), math.inf)),
    "unknown context": lambda: (data(), torch.zeros(4)),
    "missing": lambda: torch.full((4, 2), math.nan),
}
LATENTS = RECORD | {
    "unknown site": lambda: {"y": torch.zeros(1, 4)},
    "no name": lambda: {3: torch.zeros(1, 4)},
    "None": lambda: {"z": None},
    "list of latents": lambda: {"z": [0.0] * 4},
    "shape": lambda: {"z": torch.zeros(1, 3)},
    "sparse latents": lambda: {"z": sparse()},
}
DRAWS = NONE | RECORD | _but("DrawsFrom") | {
    "nonsense": lambda: "nonsense",
    "no draws": lambda: {},
    "unknown site": lambda: {"y": torch.zeros(1, 5, 4)},
    "no name": lambda: {3: torch.zeros(1, 5, 4), "y": torch.zeros(1, 5, 4)},
    "no numbers": lambda: {"z": None},
    "words": lambda: {"z": "text"},
    "ragged": lambda: {"z": [[1.0], [1.0, 2.0]]},
    "sparse draws": lambda: {"z": sparse()},
    "shape": lambda: {"z": torch.zeros(1, 5, 3)},
    "nan draws": lambda: {"z": torch.full((1, 5, 4), math.nan)},
}  # fmt: skip
DIMS = RECORD | {
    "unknown": lambda: {"y": ["a"]},
    "word": lambda: {"x": "a"},
    "number": lambda: {"x": 3},
    "None": lambda: {"x": None},
    "twice": lambda: {"x": ["a", "a"]},
    "too many": lambda: {"x": ["a", "b", "c"]},
    "no names": lambda: {"x": [["a"]]},
}
COORDS = RECORD | {
    "unknown": lambda: {"y": [1]},
    "too few": lambda: {"datum": [1]},
    "number": lambda: {"datum": 3},
    "None": lambda: {"datum": None},
    "word": lambda: {"datum": "abcd"},
    "no name": lambda: {3: [1]},
}
LOSS = RECORD | {"ELBO class": lambda: Trace_ELBO, "function": lambda: lambda model, guide, x: 0.0}
OPTIMIZER = NONE | UNCALLABLE | {
    "gives nothing": lambda: lambda params, lr: None,
    "no learning rate": lambda: lambda params: torch.optim.Adam(params),
    "abstract": lambda: torch.optim.Optimizer,
}  # fmt: skip
SCHEDULER = UNCALLABLE | {"gives nothing": lambda: lambda optimizer: None, "no arguments": lambda: lambda: None}
DEVICE = {name: value for name, value in WORD.items() if name != "None"}  # Fabric's own default
WEIGHT = DATA | {"nan matrix": lambda: torch.full((2, 1), math.nan), "rows": lambda: torch.zeros(3, 1)}
NOISE = POSITIVE | {"too many": lambda: torch.ones(3), "negative": lambda: torch.tensor([1.0, -1.0])}
del NOISE["vector"], NOISE["array"]  # one for each feature; an array is refused by its length alone

PLACES = DATA | {
    "no columns": lambda: torch.zeros(4, 0),
    "too many columns": lambda: torch.zeros(4, 2),
    "no rows": lambda: torch.zeros(0, 1),
    "nan matrix": lambda: torch.full((4, 1), math.nan),
    "unknown site": lambda: {"y": torch.zeros(4)},
    "list of latents": lambda: {"z": [0.0] * 4},
    "shape": lambda: {"z": torch.zeros(4, 3)},
}

KINDS: dict[str, Values] = {
    "model": UNCALLABLE | NONE | FAILING,
    "guide": UNCALLABLE | NONE | FAILING,
    "x": ROWS | MISFITS,
    "data": ROWS | MISFITS,
    "a": ROWS | MISFITS,
    "b": ROWS | MISFITS,
    "z": PLACES,
    "like": ROWS | MISFITS,
    "validation": ROWS,  # what fits the pair is found when it is scored
    "num_particles": COUNT,
    "num_samples": COUNT,
    "num_chains": COUNT,
    "num_distributions": COUNT,
    "max_distributions": COUNT,
    "num_steps": COUNT,
    "num_twins": {name: value for name, value in COUNT.items() if name != "0"},  # none are drawn then
    "num_draws": COUNT,
    "num_simulations": COUNT,
    "warm_up": COUNT,
    "steps": COUNT,
    "budget": COUNT,
    "epochs": COUNT,
    "batch_size": COUNT,
    "patience": COUNT,
    "learning_rate": POSITIVE,
    "tolerance": POSITIVE,
    "width": POSITIVE,
    "clip_norm": POSITIVE,
    "memory_mb": POSITIVE,
    "confidence": BETWEEN,
    "threshold": BETWEEN,
    "checkpoint_seconds": NOT_NEGATIVE,
    "standard_errors": POSITIVE,
    "train_model": FLAG,
    "seed": SEED,
    "progress": FLAG,
    "resume": FLAG,
    "compile": FLAG,
    "closed_form": FLAG,
    "predictive": FLAG,
    "annealing": NONE | RECORD | _but("Annealing") | {"word": lambda: "prior"},
    "attempts": NONE | RECORD | _but("Attempts"),
    "only": WORD,
    "rounds": COUNT,
    "optimiser": NONE | RECORD | _but("Optimiser"),
    "compute": NONE | RECORD | _but("Compute"),
    "devices": COUNT,
    "num_nodes": COUNT,
    "timeout": POSITIVE,
    "strategy": WORD,
    "sampling": NONE | RECORD | _but("Sampling") | {"word": lambda: "prior"},
    "source": WORD,
    "start": WORD,
    "schedule": WORD,
    "family": WORD,
    "anchor": WORD,
    "accelerator": DEVICE,
    "precision": DEVICE,
    "checkpoint": FILE,
    "evidence": RECORD,
    "reference": RECORD,
    "latents": LATENTS,
    "draws": DRAWS,
    "dims": DIMS,
    "coords": COORDS,
    "loss": LOSS,
    "optimizer": OPTIMIZER,
    "scheduler": SCHEDULER,
    "loggers": NONE | {"word": lambda: "csv", "number": lambda: 3, "numbers": lambda: [3]},
    "kl_weight": POSITIVE,
    "estimator": UNCALLABLE | NONE | FAILING,
    "directory": {name: value for name, value in FILE.items() if name not in ("", "folder")} | NONE,
    "executor": {name: value for name, value in UNCALLABLE.items() if name != "text"}
    | {"address": lambda: "host:8786"},
    "workers": {name: value for name, value in COUNT.items() if name != "None"},
    "shard_size": COUNT,
    "options": {},  # those of the estimator
    "weight": WEIGHT,
    "noise_variance": NOISE,
}
# Their messages speak of the pair, and not of the argument.
ABOUT_THE_PAIR = set(FAILING) | set(MISFITS)


def _says_nothing(x):
    raise NotImplementedError


class Case(NamedTuple):
    """A bad value of one argument of a function, or of one field of a record."""

    function: str
    argument: str
    value: str

    def good_arguments(self) -> dict[str, Any]:
        """The arguments of a small call, in which the bad value has a place."""
        if self.function in RECORDS:
            return {}
        if self.function == "column_stability":
            return {"weight": torch.ones(2, 1), "noise_variance": 1.0, "x": data()}
        taken = inspect.signature(getattr(inference, self.function)).parameters
        arguments: dict[str, Any] = {"model": model, "guide": guide}
        arguments |= {name: data() for name in ("x", "data", "a", "b") if name in taken}
        if self.function == "log_weights":
            arguments["num_particles"] = 5
        if self.function == "in_shards":
            folder = tempfile.mkdtemp()
            arguments |= {"estimator": inference.importance_evidence, "directory": folder, "progress": False}
        if self.function == "fit":
            arguments |= {"epochs": 1, "progress": False}
        if self.function in ("sample", "decode"):
            arguments["like"] = data()
        if self.function == "decode":
            arguments["z"] = torch.zeros(4, 1)
        if self.function == "certify" and self.argument == "like":
            arguments["x"] = None
        if self.argument == "patience":
            arguments["validation"] = data()
        return arguments

    def call(self) -> Any:
        """Call the function with the bad value."""
        function = getattr(inference, self.function)
        return function(**self.good_arguments() | {self.argument: KINDS[self.argument][self.value]()})


def public_functions() -> list[str]:
    """The names of the public functions."""
    return [name for name in inference.__all__ if inspect.isfunction(getattr(inference, name))]


def option_records() -> list[str]:
    """The names of the records that functions take as options."""
    kinds = {name for name in inference.__all__ if inspect.isclass(getattr(inference, name))}
    return sorted(name for name in kinds if getattr(inference, name).__module__.endswith(".option_records"))


def cases() -> Iterator[Case]:
    """Every bad value of every argument, and of every field of a record of options."""
    for function in [*public_functions(), *option_records()]:
        for argument, parameter in inspect.signature(getattr(inference, function)).parameters.items():
            for value in KINDS[argument]:
                if value == "None" and parameter.default is None and argument not in ("dims", "coords", "latents"):
                    continue
                if function == "check" and value in ABOUT_THE_PAIR:
                    continue  # whatever the programs do is a finding
                if function == "column_stability" and value in MISFITS.keys() - {"missing", "other width", "vector"}:
                    continue
                if function in ("log_weights", "simulate") and value == "infinite":
                    continue  # the weights are −inf then, and a simulation looks at the shape alone
                yield Case(function, argument, value)


def outcome(case: Case) -> BaseException | None:
    """What a bad value raises; None if it is accepted."""
    try:
        case.call()
    except (Exception, KeyboardInterrupt) as error:
        return error
    return None


def is_raw(error: BaseException | None) -> bool:
    """Whether a bad value was accepted, or refused without a sentence of ours."""
    return not isinstance(error, PpvaeError)
