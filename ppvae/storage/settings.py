"""The settings of a run: the options of `ppvae run`, and the content of its `config.yaml`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ppvae.errors import OptionError

Method = Literal["auto", "importance", "ais"]

# numpy's global generator, which Pyro seeds too, takes no larger seed.
_LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Settings:
    """The options of a run: train a pair, estimate log p(x), show the gap.

    Args:
        pair: the model/guide pair: a name from `ppvae list`, `my_file.py:MyPair`, `my_file.py`, or
            `package.module:MyPair`.
        pair_args: arguments of the pair, as in `--pair_args.latent_dim 10`. Write a class as `torch.nn:ReLU`.
        data: a name from `ppvae list`, or a .npy, .npz, .csv, .tsv or .parquet file with one datum a row. auto takes
            the example data of the pair, or digits.
        validation_data: a file of validation data. null takes part of data.
        test_data: a file of test data. null takes part of data.
        label_column: the column of the table that holds labels. It is not trained on; it colours pictures. none says
            that no column is a label.
        drop_columns: columns to leave out, as in `--drop_columns id,date`.
        context_columns: columns that the programs take after x, as in `--context_columns age,sex`.
        split: fractions of the data for training, validation and test. null is 0.8,0.1,0.1.
        split_column: the column that says train, validation or test for each row.
        stratify: a column of classes. Each class is split by the same fractions.
        standardise: bring each feature to mean 0 and standard deviation 1. log p(x) stays in the units of the file; the
            Jacobian is included.
        context: files of what the programs take after x, in their order, as in `--context labels.npy --context
            lengths.npy`. Or let the .npz of --data hold x and the other arrays under the names of the programs'
            arguments. ppvae finds out which arrays have a row for each datum and which all data share.
        data_dir: the folder that holds the files of mnist and binarized_mnist.
        likelihood: p(x|z), for a pair that takes one: a name from `ppvae list`, or a class of your own, written as for
            pair. Known data sets have a default, such as Binomial for digits and Bernoulli for mnist.
        likelihood_args: arguments of the likelihood, as in `--likelihood_args.total_count 16`.
        epochs: the largest number of passes over the training data.
        batch_size: data per gradient step.
        learning_rate: the learning rate of Adam.
        cosine: decrease the learning rate to 0 along half a cosine.
        patience: stop after so many epochs without a clear gain of the validation ELBO. null never stops early.
        precision: the arithmetic of the training: 32-true, 64-true, bf16-mixed, or another of Lightning Fabric.
        accelerator: where to compute: auto, cpu, cuda, or another of Lightning Fabric.
        compute: processes to train on, as in `--compute.devices 2`; num_nodes, strategy, precision, timeout likewise,
            as `ppvae.inference.Compute` has them.
        loggers: what else receives the ELBOs of each epoch, as in `--loggers csv,tensorboard`, or by import path, as in
            `--loggers lightning.pytorch.loggers:MLFlowLogger`. metrics.csv is always written.
        method: how log p(x) is estimated. auto uses, for each datum, the cheapest estimator that reaches the tolerance.
            importance uses draws of the guide. ais uses annealed chains.
        tolerance: half the width of a datum's 95 % interval, in nats. For auto.
        eval_minutes: stop the evaluation after so many minutes. The data are taken in random order. null evaluates all
            data. For auto.
        num_particles: draws of the guide per datum, for the ELBO, the K-sample bounds and k-hat, and for log p(x) with
            importance.
        max_eval: evaluate on so many data only, evenly spaced. null takes all.
        seed: the seed of training and evaluation. The split of the data does not depend on it.
        out: the folder that holds the run directories.
        name: the name of the run directory. null makes one of date, time, pair and data.
    """

    pair: str = "VAE"
    pair_args: dict[str, Any] = field(default_factory=dict)
    data: str = "auto"
    validation_data: str | None = None
    test_data: str | None = None
    label_column: str | None = None
    drop_columns: list[str] = field(default_factory=list)
    context_columns: list[str] = field(default_factory=list)
    split: str | None = None
    split_column: str | None = None
    stratify: str | None = None
    standardise: bool = False
    context: list[str] = field(default_factory=list)
    data_dir: str | None = None
    likelihood: str | None = None
    likelihood_args: dict[str, Any] = field(default_factory=dict)
    epochs: int = 300
    batch_size: int = 200
    learning_rate: float = 1e-3
    cosine: bool = False
    patience: int | None = 20
    precision: str = "32-true"
    accelerator: str = "auto"
    compute: dict[str, Any] = field(default_factory=dict)
    loggers: list[str] = field(default_factory=list)
    method: Method = "auto"
    tolerance: float = 0.1
    eval_minutes: float | None = 2.0
    num_particles: int = 1000
    max_eval: int | None = None
    seed: int = 0
    out: str = "runs"
    name: str | None = None

    def check(self) -> Settings:
        """The same settings, if every number in them can be used.

        Raises:
            OptionError: one cannot; found before any work is done.
        """
        for name in ("epochs", "batch_size", "patience", "num_particles", "max_eval"):
            if (value := getattr(self, name)) is not None:
                check_count(name, value)
        for name in ("learning_rate", "tolerance", "eval_minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise OptionError(f"{name} must be a positive number; it is {value}.")
        if self.method not in get_args(Method):
            raise OptionError(f"method must be auto, importance or ais; it is {self.method!r}.")
        if self.split_column is not None and (self.split is not None or self.stratify is not None):
            raise OptionError("split_column divides the data itself: leave split and stratify out.")
        if self.validation_data is not None and self.test_data is None:
            raise OptionError("validation_data needs test_data, the file to test on.")
        if self.test_data is not None and (self.split_column is not None or self.stratify is not None):
            raise OptionError("test_data divides the data itself: leave split_column and stratify out.")
        self.fractions()
        _check_seed(self.seed)
        if self.name is not None and (self.name in {"", ".", ".."} or Path(self.name).name != self.name):
            raise OptionError(
                f"name must be the name of a new folder inside out, without a slash; it is {self.name!r}."
            )
        return self

    def fractions(self) -> tuple[float, float, float] | None:
        """The fractions of ``split``; None where it is not given.

        Raises:
            OptionError: it holds no three numbers.
        """
        if self.split is None:
            return None
        try:
            found = tuple(float(word) for word in self.split.strip("[]()").split(","))
        except ValueError:
            found = ()
        if len(found) != 3 or min(found) <= 0 or not math.isclose(sum(found), 1, abs_tol=1e-6):
            raise OptionError(
                f"split must be three fractions above 0 whose sum is 1, as in 0.8,0.1,0.1; it is {self.split!r}."
            )
        return found

    def absolute(self) -> Settings:
        """The same settings with the paths that they name made absolute, so that they hold from any folder."""
        pair = _absolute_spec(self.pair)
        loggers = [_absolute_spec(spec) for spec in self.loggers]
        data = _absolute(self.data) if Path(self.data).suffix else self.data
        data_dir = _absolute(self.data_dir) if self.data_dir else None
        more = {name: getattr(self, name) for name in ("validation_data", "test_data")}
        files: dict[str, Any] = {name: _absolute(file) for name, file in more.items() if file is not None}
        context = [_absolute(file) for file in self.context]
        return replace(self, pair=pair, loggers=loggers, data=data, context=context, data_dir=data_dir, **files)

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)


def check_count(name: str, value: int, least: int = 1) -> None:
    """Refuse a value that is not a count.

    Raises:
        OptionError: it is no whole number, or smaller than the least that has a meaning.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{name} must be a whole number of at least {least}; it is {value!r}.")


def _check_seed(seed: int) -> None:
    """Refuse a seed that numpy would refuse.

    Raises:
        OptionError: it is negative or too large.
    """
    if not 0 <= seed <= _LARGEST_SEED:
        raise OptionError(f"seed must lie between 0 and {_LARGEST_SEED}; it is {seed}.")


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _absolute_spec(spec: str) -> str:
    """A name or an import path, with the path of a file made absolute."""
    file, colon, attribute = spec.partition(":")
    return f"{_absolute(file)}{colon}{attribute}" if file.endswith(".py") else spec
