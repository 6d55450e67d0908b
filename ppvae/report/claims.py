"""The claims at the top of a page: is log p(x) reliable, what causes the gap, can q(z|x) be used as the posterior.

Draws of the guide can be used for the posterior where k-hat, the tail index of p(x, z)/q(z|x), is below 0.7: there
importance weights correct them; above, they cannot.
"Yes, but Did It Work?: Evaluating Variational Inference" (Yao et al., 2018), arXiv:1802.02538.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup, escape

from .numbers import Numbers

Level = Literal["good", "caution", "bad", "unknown"]
# Up to this share of the data k-hat may be too high before the answer is no.
FEW = 0.1
SHARE = "draws.pareto_k_share_above_0_7"


@dataclass(frozen=True)
class Claim:
    """A claim at the top of a page: a question and its answer.

    Attributes:
        question: in the reader's words.
        level: how good the answer is.
        word: the answer in a word or two.
        answer: a sentence or two.
    """

    question: str
    level: Level
    word: str
    answer: Markup


def claims(summary: dict[str, Any], numbers: Numbers, run: str) -> list[Claim]:
    """The answers that a summary gives.

    Args:
        summary: of an evaluated run.
        numbers: the same, as they are shown.
        run: the run directory, as a shell takes it.
    """
    found = [_estimate(summary, numbers), _bounds(summary, numbers, run), _causes(summary, numbers, run)]
    return [*found, _posterior(summary, numbers), *_calibration(summary)]


def _shared(summary: dict[str, Any]) -> bool:
    """Whether the data set is one unit: there are no shares of data, and no means over them."""
    return summary.get("unit") == "data set"


def _estimate(summary: dict[str, Any], numbers: Numbers) -> Claim:
    question = "Is the estimate of log p(x) reliable?"
    if not numbers.known("evidence.log_evidence"):
        return Claim(question, "bad", "no", Markup("It is not a number: the remarks below give the reason."))
    if "tolerance" in summary:
        return _to_tolerance(question, summary, numbers)
    if summary.get("method") == "importance":
        return _by_draws(question, summary, numbers)
    if _shared(summary):
        trusted = numbers.value("evidence.trusted_share") == 1
        answer = "The estimator has no doubt about it." if trusted else "The remarks below give the reason."
        return Claim(question, "good" if trusted else "bad", "yes" if trusted else "no", Markup(answer))
    if summary.get("doubtful", bool(summary.get("remarks"))):  # older runs have remarks alone, some of them of the data
        return Claim(question, "caution", "not for every datum", Markup("The remarks below name the others."))
    return Claim(question, "good", "yes", Markup("The estimator has no remark about any datum."))


def _to_tolerance(question: str, summary: dict[str, Any], numbers: Numbers) -> Claim:
    share, trusted = numbers.value("evidence.settled_share") or 0.0, numbers.value("evidence.trusted_share") or 0.0
    within = "It is known to ± {tolerance:g} nats"
    if min(share, trusted) == 1:
        return Claim(question, "good", "yes", numbers.fill(within + ("." if _shared(summary) else " for every datum.")))
    if _shared(summary):
        return Claim(question, "bad", "no", numbers.fill("It is not known to ± {tolerance:g} nats: see the remarks."))
    answer = within + " for {evidence.settled_share:.1%} of the data; {evidence.trusted_share:.1%} are to be trusted."
    few = 1 - min(share, trusted) <= FEW
    return Claim(question, "caution" if few else "bad", "for most data" if few else "no", numbers.fill(answer))


def _by_draws(question: str, summary: dict[str, Any], numbers: Numbers) -> Claim:
    share = numbers.value(SHARE)
    if _shared(summary):
        high = "k-hat is 0.7 or more: the true log p(x) is probably higher than the estimate, and the gap larger."
        return (
            Claim(question, "good", "yes", Markup("k-hat is below 0.7."))
            if share == 0
            else Claim(question, "bad", "only as a lower bound", Markup(high))
        )
    if share is None or share > 0:
        answer = (
            f"For {{{SHARE}:.0%}} of the data k-hat is 0.7 or more: the true log p(x) is probably higher than the "
            "estimate, and the gap larger."
        )
        few = share is not None and share <= FEW
        word = "for most data" if few else "only as a lower bound"
        return Claim(question, "caution" if few else "bad", word, numbers.fill(answer))
    return Claim(question, "good", "yes", Markup("k-hat is below 0.7 for every datum."))


KINDS = {
    "real": "the lower bound is certified; the upper end has the error of a large sample, and holds if the chains "
    "reach all of the posterior",
    "simulated": "both bounds are certified, on data drawn from the model",
    "exact": "log p(x) of this model is known exactly",
}


def _bounds(summary: dict[str, Any], numbers: Numbers, run: str) -> Claim:
    question = "Is log p(x) bounded from both sides?"
    if "certificate" not in summary:
        missing = Markup("<code>ppvae certify {}</code> computes bounds.").format(run)
        return Claim(question, "unknown", "not yet", missing)
    kind = KINDS.get(str(summary["certificate"].get("kind")), "")
    all_data = numbers.value("certificate.num_data") == numbers.value("evidence.num_data")
    what = "The mean over {certificate.num_data} data" + ("" if all_data else ", not the same mean as above,")
    if _shared(summary):
        simulated = summary["certificate"].get("split") == "model"
        what = "The mean over {certificate.num_data} simulated data sets" if simulated else "That of the data set"
    if not numbers.known("certificate.mean_upper"):
        answer = what + (
            " is at least {certificate.mean_lower:.3f} nats, with {certificate.confidence:.0%} confidence. There is no "
            "upper end; the remarks say why, and what to do."
        )
        return Claim(question, "caution", "from below only", numbers.fill(answer))
    answer = what + (
        " lies between {certificate.mean_lower:.3f} and {certificate.mean_upper:.3f} nats, with "
        "{certificate.confidence:.0%} confidence"
    )
    reached = numbers.value("certificate.reached")
    word = "yes" if reached else "wider than asked"
    return Claim(question, "good" if reached else "caution", word, numbers.fill(f"{answer}{kind and ': ' + kind}."))


def _causes(summary: dict[str, Any], numbers: Numbers, run: str) -> Claim:
    question = "What causes the gap?"
    if "gap_attribution" not in summary:
        missing = Markup("<code>ppvae gap {}</code> splits it into its causes.").format(run)
        return Claim(question, "unknown", "not known yet", missing)
    amortisation, family = (numbers.value(f"gap_attribution.{part}") or 0.0 for part in ("amortisation", "family"))
    of_all = "" if _shared(summary) else ", the mean over {gap_attribution.num_data} data"
    better = "a longer training" if trained_whole(summary) else "a better encoder network"
    answer = (
        f"Of {{gap_attribution.total:±}} nats{of_all}, {better} could remove {{gap_attribution.amortisation:±}} "
        "(amortisation), a richer family of guides {gap_attribution.family:±}."
    )
    network = "mostly the training" if trained_whole(summary) else "mostly the encoder network"
    word = network if amortisation > family else "mostly the guide's family"
    doubtful = bool(summary["gap_attribution"].get("remarks"))
    more = " The remarks below qualify these numbers." if doubtful else ""
    return Claim(question, "caution" if doubtful else "good", word, numbers.fill(answer + more))


def _posterior(summary: dict[str, Any], numbers: Numbers) -> Claim:
    question = "Can q(z|x) be used as the posterior?"
    quality = verdict_of(summary.get("quality"))
    said = Markup(" Beside reference draws: {}.").format(quality) if quality else Markup("")
    if not numbers.has(SHARE):
        answer = "k-hat of the guide's own draws was not computed; the gap is KL(q(z|x) ‖ p(z|x))."
        return Claim(question, "unknown", "not judged", escape(answer) + said)
    share = numbers.value(SHARE)
    if _shared(summary) and share != 0:
        answer = (
            "k-hat of its draws is 0.7 or more: it misses much of the posterior, and its intervals are wrong, usually "
            "too narrow."
        )
        return Claim(question, "bad", "no", escape(answer) + said)
    if share == 0:
        answer = "k-hat of its draws is below 0.7" + ("." if _shared(summary) else " for every datum.")
        return Claim(question, "good", "yes, once reweighted", escape(answer) + said)
    if share is not None and share <= FEW:
        answer = f"k-hat of its draws is 0.7 or more for {{{SHARE}:.1%}} of the data."
        return Claim(question, "caution", "for most data", numbers.fill(answer) + said)
    answer = (
        f"k-hat of its draws is 0.7 or more for {{{SHARE}:.0%}} of the data. There it misses much of the posterior, "
        "and its intervals are wrong, usually too narrow."
    )
    return Claim(question, "bad", "no", numbers.fill(answer) + said)


CALIBRATED: dict[str, tuple[Level, str, str]] = {
    "calibrated": ("good", "yes", "Exact draws of simulated data have uniform ranks among its own."),
    "bad on the data": ("bad", "no", "It is wrong on simulated data that resemble these data."),
    "bad away from the data": ("caution", "on the data", "It is wrong only on simulated data unlike these data."),
    "bad": (
        "caution",
        "not on its own simulations",
        "These simulations do not show whether it is calibrated on these data.",
    ),
}


def _calibration(summary: dict[str, Any]) -> list[Claim]:
    said = verdict_of(summary.get("calibration"))
    if not said or said.startswith("does not apply"):
        return []
    level, word, answer = CALIBRATED.get(said, ("caution", said, "The section on calibration says more."))
    return [Claim("Is q(z|x) calibrated?", level, word, Markup(answer))]


def trained_whole(summary: dict[str, Any]) -> bool:
    """Whether all data were trained on: the guide has parameters for them, instead of a network that reads them."""
    return summary.get("split") == "training"


def verdict_of(section: Any) -> str:
    """The verdict of a section in words, empty where it has none."""
    said = section.get("verdict") if isinstance(section, dict) else None
    if isinstance(said, list):
        return "; ".join(str(item) for item in said)
    return "" if said is None else str(said)
