"""What the pairs of models/ have learnt, a figure for each of them: a function of the pair and its data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ppvae.datasets import Dataset, load_dataset
from ppvae.inference import impute, sample

Draw = Callable[[Any, Dataset], Figure]


def rows_of_pictures(pictures: Tensor, title: str) -> Figure:
    """Pictures side by side, `(rows, columns, 64)`, dark where the value is high."""
    rows, columns = pictures.shape[:2]
    figure = Figure(figsize=(0.55 * columns + 0.4, 0.55 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for i in range(rows):
        for j in range(columns):
            axes[i, j].imshow(pictures[i, j].detach().reshape(8, 8).numpy(), cmap="gray_r")
            axes[i, j].set_axis_off()
    figure.suptitle(title, fontsize=9)
    return figure


def items(pair: Any, data: Dataset) -> Figure:
    """The probability of a right answer by ability, a curve for each item."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    ability = torch.linspace(-4, 4, 200)
    for j, curve in enumerate(pair.logits(ability).sigmoid().detach().T, start=1):
        axes.plot(ability.numpy(), curve.numpy(), label=f"item {j}")
    axes.set(xlabel="ability", ylabel="probability of a right answer", ylim=(0, 1))
    axes.legend(fontsize=8)
    return figure


def loadings(pair: Any, data: Dataset) -> Figure:
    """W in units of the features' standard deviations."""
    figure = Figure(figsize=(6, 2.2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow((pair.weight.detach() / data.train.std(0)[:, None]).T.numpy(), cmap="RdBu", vmin=-1, vmax=1)
    axes.set(
        xlabel="feature", ylabel="factor", yticks=range(pair.latent_dim), yticklabels=range(1, pair.latent_dim + 1)
    )
    figure.colorbar(image, ax=axes, label="loading")
    return figure


def components(pair: Any, data: Dataset) -> Figure:
    """What the mean of each component of the prior decodes to."""
    means = pair.likelihood.mean(pair.decoder(pair.component_loc))
    return rows_of_pictures(means[None, :10], "the means of the components, decoded")


def labels(pair: Any, data: Dataset) -> Figure:
    """Five draws of z, a row each, decoded with each label."""
    z = torch.randn(5, 1, pair.latent_dim).expand(5, 10, -1)
    code = torch.eye(10).expand(5, 10, 10)
    return rows_of_pictures(pair.likelihood.mean(pair.decoder(torch.cat([z, code], -1))), "one z a row, each label")


def reasons(pair: Any, data: Dataset) -> Figure:
    """The slope with which a value goes missing, by column; values go missing in the even ones."""
    figure = Figure(figsize=(6, 2.4), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(pair.missing_slope)), pair.missing_slope.detach().numpy())
    axes.set(xlabel="column", ylabel="slope of missing")
    return figure


def topics(pair: Any, data: Dataset) -> Figure:
    """The topics: pixels are words, and the ink on a pixel is how often the word occurs."""
    return rows_of_pictures(pair.topics()[None], "topics")


def parts(pair: Any, data: Dataset) -> Figure:
    """The columns of the decoder's weights."""
    return rows_of_pictures(pair.decoder[-1].weight.T[None], "parts")


def codebook(pair: Any, data: Dataset) -> Figure:
    """What every assignment of the two codes decodes to."""
    codes = torch.meshgrid(torch.arange(10), torch.arange(10), indexing="ij")
    return rows_of_pictures(pair.decode(*codes).mean, "first code by row, second by column")


def pseudo_inputs(pair: Any, data: Dataset) -> Figure:
    """Ten of the inputs whose codes make the prior."""
    return rows_of_pictures(pair.pseudo_inputs[None, ::5], "pseudo-inputs")


def draws(pair: Any, data: Dataset) -> Figure:
    """Decoded draws of z, of latents that are standard Gaussian."""
    z = torch.randn(2, 10, pair.latent_dim)
    return rows_of_pictures(pair.likelihood.mean(pair.decoder(z)), "draws of the model")


def layers(pair: Any, data: Dataset) -> Figure:
    """A draw of the top layer a row, and draws of the layer below it."""
    top = torch.randn(4, 1, pair.encoder[-1].output_bias.shape[0] // 2)
    loc, raw = pair.downward[0](top).chunk(2, -1)
    z = loc + torch.nn.functional.softplus(raw) * torch.randn(4, 10, loc.shape[-1])
    return rows_of_pictures(pair.likelihood.mean(pair.decoder(z)), "one draw of z2 a row, draws of z1")


def shares(pair: Any, data: Dataset) -> Figure:
    """The proportions of draws of z, whatever the library size."""
    return rows_of_pictures(pair.shares(torch.randn(2, 10, pair.latent_dim)), "proportions of draws of z")


def prior_draws(pair: Any, data: Dataset) -> Figure:
    """Decoded draws of a prior that is learnt."""
    z = pair.prior(data.train)((20,)) if hasattr(pair, "prior_flow") else pair.prior().sample((20,))
    return rows_of_pictures(pair.likelihood.mean(pair.decoder(z)).reshape(2, 10, -1), "draws of the model")


def relaxed_codebook(pair: Any, data: Dataset) -> Figure:
    """What the corners of the two simplices decode to."""
    first, second = torch.meshgrid(torch.arange(10), torch.arange(10), indexing="ij")
    corners = torch.eye(10)
    return rows_of_pictures(
        pair.decode(torch.cat([corners[first], corners[second]], -1)).mean, "first code by row, second by column"
    )


def imputed(pair: Any, data: Dataset) -> Figure:
    """What the pair puts in place of the missing values of the test data, against the values that were hidden."""
    x, whole = data.test, load_dataset("breast_cancer").test.to(data.test)
    hidden = x.isnan()
    assert torch.equal(x[~hidden], whole[~hidden])  # the same data in the same order
    filled = impute(pair.model, pair.guide, x, num_particles=200, seed=0)
    true, mean = whole[hidden].numpy(), filled.mean[hidden].numpy()
    figure = Figure(figsize=(3.6, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(true, mean, ".", markersize=4, alpha=0.5)
    axes.axline((0, 0), slope=1, color="0.6", linewidth=0.8)
    axes.set(xlabel="the value that is missing", ylabel="its mean under the pair")
    return figure


def mixed_columns(pair: Any, data: Dataset) -> Figure:
    """Progression against body mass index, by sex: the data, and as many draws of the model."""
    drawn = sample(pair.model, pair.guide, data.train.nan_to_num(nan=1.0), len(data.train), seed=0)
    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, values, title in zip(panels, (data.train, drawn), ("data", "draws of the model"), strict=True):
        for sex in (0, 1):
            own = values[values[:, 1] == sex]
            axes.plot(own[:, 2].numpy(), own[:, 10].numpy(), ".", markersize=3, label=f"sex {sex}")
        axes.set(xlabel="body mass index", title=title)
    panels[0].set_ylabel("progression")
    panels[0].legend(fontsize=8)
    return figure


def sequences(pair: Any, data: Dataset) -> Figure:
    """Draws of the model: eight steps of eight pixels, one below the other."""
    drawn = sample(pair.model, pair.guide, data.batch("test"), 20, seed=0)
    return rows_of_pictures(drawn.reshape(2, 10, -1), "draws of the model, a step a row of pixels")
