"""The record of a pair with what is known about it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn


@dataclass(frozen=True)
class Pair:
    """A model, a guide, data, and the truth about them.

    ``log_evidence(x, *context)`` and ``gap(x, *context)`` give log p(x) and KL(q || p(z | x)) per datum, in nats, where
    mathematics has them. ``exact`` says that each log weight equals log p(x). ``latents`` are the guide's sites that
    log weights are drawn over, ``summed`` the discrete sites that are enumerated. ``modules`` hold the parameters,
    unless the parameter store does (``stored``).
    """

    model: Callable[..., object]
    guide: Callable[..., object]
    x: Tensor
    context: tuple[Tensor, ...] = ()
    log_evidence: Callable[..., Tensor] | None = None
    gap: Callable[..., Tensor] | None = None
    exact: bool = False
    latents: frozenset[str] = frozenset({"z"})
    summed: frozenset[str] = frozenset()
    modules: tuple[nn.Module, ...] = ()
    stored: bool = False

    @property
    def args(self) -> tuple[Tensor, ...]:
        """The arguments of the two programs."""
        return (self.x, *self.context)

    @property
    def data(self) -> Tensor | tuple[Tensor, ...]:
        """The data as inference takes them."""
        return self.args if self.context else self.x

    @property
    def truth(self) -> Tensor:
        """log p(x) per datum."""
        assert self.log_evidence is not None
        return self.log_evidence(*self.args).detach()

    @property
    def true_gap(self) -> Tensor:
        """KL(q || p(z | x)) per datum."""
        assert self.gap is not None
        return self.gap(*self.args).detach()

    def rows(self, index: slice | list[int]) -> "Pair":
        """The same pair with some of its data."""
        return replace(self, x=self.x[index], context=tuple(c[index] for c in self.context))

    def replicated(self, times: int, row: int = 0) -> "Pair":
        """The same datum `times` over: every copy has its own particles, so each is an independent replicate."""
        return self.rows([row] * times)
