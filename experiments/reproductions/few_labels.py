"""The accuracy of a classifier that saw few labels: the semi-supervised VAE M2 on MNIST."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ppvae.datasets import Context, Dataset, load_dataset
from ppvae.models import Bernoulli, SemiSupervisedVAE

from .mnist_likelihood import LEARNING_RATE, SECONDS
from .row import Figure, Published, Row, RowEffort, RowOutcome
from .training import trained

BATCH_SIZE, EPOCHS, PYRO_EPOCHS, CLASSES = 250, 300, 50, 10


def labels_of_few(labels: Tensor, num_labels: int, seed: int) -> Tensor:
    """The labels of so many data, as many of each class, and −1 for all others.

    Example:
        >>> few = labels_of_few(torch.arange(10).repeat(5), 20, seed=0)
        >>> int((few >= 0).sum()), few[few >= 0].bincount().tolist()
        (20, [2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    few = torch.full_like(labels, -1)
    for label in range(CLASSES):
        chosen = order[labels[order] == label][: num_labels // CLASSES]
        few[chosen] = label
    return few


def accuracy(num_labels: int, effort: RowEffort) -> RowOutcome:
    """The share of test images that q(y|x) classifies right."""
    effort = replace(effort, seconds=effort.seconds or SECONDS)
    mnist = load_dataset("mnist")
    assert mnist.labels is not None
    few = labels_of_few(mnist.labels["train"], num_labels, effort.seed)
    data = _with_labels(mnist, few, effort.device)
    options = {"batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE / 2, "epochs": EPOCHS}
    make = partial(_pair, data.train, num_labels)
    vae, told = trained(f"few_labels_{num_labels}", make, data, lambda: None, effort, **options)
    with torch.no_grad():
        found = vae.classify(mnist.test.to(effort.device)).argmax(-1).cpu()
    right = (found == mnist.labels["test"]).double()
    error = math.sqrt(float(right.var()) / len(right))
    told |= {"num_labels": num_labels, "num_data": len(right)}
    return RowOutcome((Figure(float(right.mean()), error, _short(told["epochs"])),), told)


def _short(epochs: int) -> str:
    return f"{epochs} epochs, where Pyro's program takes {PYRO_EPOCHS}" if epochs < PYRO_EPOCHS else ""


def _pair(train: Tensor, num_labels: int) -> SemiSupervisedVAE:
    """M2 as Pyro's example has it: 50 latents, one hidden layer of 500, α = N/10 for the labels together."""
    return SemiSupervisedVAE.for_data(
        torch.bernoulli(train),
        Bernoulli(),
        latent_dim=50,
        hidden=(500,),
        nonlinearity=nn.Softplus,
        classifier_weight=0.1 * len(train) / num_labels,
    )


def _with_labels(data: Dataset, labels: Tensor, device: str) -> Dataset:
    """The training images on a device, with labels as the context of the pair."""
    train, none = data.train.to(device), data.validation[:0].to(device)
    context = (Context("labels", labels.to(device), True),)
    return replace(data, train=train, validation=none, test=none, labels=None, context=context)


def _row(num_labels: int, published: float, spread: float) -> Row:
    return Row(
        f"few_labels_{num_labels}",
        f"M2 on MNIST with {num_labels} labels",
        (Published("accuracy on the 10 000 test images", published, 0.00005, better="higher", spread=spread),),
        "Pyro's tutorial on the semi-supervised VAE, with its auxiliary loss (Kingma et al., 2014, arXiv:1406.5298)",
        "`SemiSupervisedVAE` with 50 latents and 500 hidden units, the class summed out, α = 0.1 N/(number of labels); "
        "as many labels of each class, pixels drawn afresh at each step",
        "labelled and unlabelled images in one batch, where Pyro's program alternates; pixels 0 and 1, not grey",
        partial(accuracy, num_labels),
    )


# The tutorial prints 95 % bounds of the mean over five choices of the labels; ours is one choice.
ROWS = (_row(100, 0.9319, 0.0060 * math.sqrt(5)), _row(600, 0.9437, 0.0070 * math.sqrt(5)))
