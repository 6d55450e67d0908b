"""The verdict of a run in plain words: how good the model is, whether that number holds, and whether q(z|x) does.

Whether draws of the guide can stand for the posterior is read off k-hat, the tail of p(x, z)/q(z|x): below 0.7 for a
datum, reweighted draws serve; above, they do not.
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
SHARE = "evidence.pareto_k_share_above_0_7"


@dataclass(frozen=True)
class Claim:
    """An answer to one of the reader's questions.

    Attributes:
        question: in the reader's words.
        level: how the answer is to be taken.
        word: the answer in a word or two.
        answer: a sentence or two.
    """

    question: str
    level: Level
    word: str
    answer: Markup


def verdict(summary: dict[str, Any], numbers: Numbers, run: str) -> list[Claim]:
    """The answers that a summary gives.

    Args:
        summary: of an evaluated run.
        numbers: the same, as they are shown.
        run: the run directory, as a shell takes it.
    """
    claims = [_estimate(summary, numbers), _bounds(summary, numbers, run), _causes(summary, numbers, run)]
    return [*claims, _posterior(summary, numbers), *_calibration(summary)]


def _by_draws(summary: dict[str, Any]) -> bool:
    """Whether k-hat speaks of draws of the guide."""
    return summary.get("method", "importance") == "importance"


def _estimate(summary: dict[str, Any], numbers: Numbers) -> Claim:
    question = "Is log p(x) well known?"
    if not numbers.known("evidence.log_evidence"):
        return Claim(question, "bad", "no", Markup("It is not a number: the remarks below say why."))
    if _by_draws(summary):
        share = numbers.value(SHARE)
        if share is None or share > 0:
            answer = (
                f"For {{{SHARE}:.0%}} of the data k-hat is 0.7 or more: the true log p(x) is probably higher than the "
                "estimate, and the gap larger."
            )
            few = share is not None and share <= FEW
            word = "for most data" if few else "only from below"
            return Claim(question, "caution" if few else "bad", word, numbers.fill(answer))
        return Claim(question, "good", "yes", Markup("k-hat is below 0.7 for every datum."))
    if summary.get("remarks"):
        return Claim(question, "caution", "not for every datum", Markup("The remarks below say for which not."))
    return Claim(question, "good", "yes", Markup("The estimator has no remark about any datum."))


KINDS = {
    "real": "the lower end is certified, the upper one is an estimate, as it must be on given data",
    "simulated": "both ends are certified, on data drawn from the model itself",
    "exact": "log p(x) of this model is known exactly",
}


def _bounds(summary: dict[str, Any], numbers: Numbers, run: str) -> Claim:
    question = "Is it held between bounds?"
    if "certificate" not in summary:
        missing = Markup("<code>ppvae certify {}</code> finds bounds.").format(run)
        return Claim(question, "unknown", "not yet", missing)
    kind = KINDS.get(str(summary["certificate"].get("kind")), "")
    all_data = numbers.value("certificate.num_data") == numbers.value("evidence.num_data")
    answer = (
        "The mean over {certificate.num_data} data" + ("" if all_data else ", another mean than the one above,") + " "
        "lies between {certificate.mean_lower:.2f} and {certificate.mean_upper:.2f} nats, with "
        "{certificate.confidence:.0%} confidence"
    )
    reached = numbers.value("certificate.reached")
    word = "yes" if reached else "wider than asked"
    return Claim(question, "good" if reached else "caution", word, numbers.fill(f"{answer}{kind and ': ' + kind}."))


def _causes(summary: dict[str, Any], numbers: Numbers, run: str) -> Claim:
    question = "Whose fault is the gap?"
    if "gap_attribution" not in summary:
        missing = Markup("<code>ppvae gap {}</code> splits it into its causes.").format(run)
        return Claim(question, "unknown", "not known yet", missing)
    amortisation, family = (numbers.value(f"gap_attribution.{part}") or 0.0 for part in ("amortisation", "family"))
    answer = (
        "Of {gap_attribution.total:.2f} ± {gap_attribution.total_standard_error:.2f} nats, the mean over "
        "{gap_attribution.num_data} data, a better encoder network could win {gap_attribution.amortisation:.2f} ± "
        "{gap_attribution.amortisation_standard_error:.2f} (amortisation), a richer family of guides "
        "{gap_attribution.family:.2f} ± {gap_attribution.family_standard_error:.2f}."
    )
    word = "mostly the encoder network's" if amortisation > family else "mostly the guide's family's"
    doubtful = bool(summary["gap_attribution"].get("remarks"))
    more = " There are remarks on these numbers below." if doubtful else ""
    return Claim(question, "caution" if doubtful else "good", word, numbers.fill(answer + more))


def _posterior(summary: dict[str, Any], numbers: Numbers) -> Claim:
    question = "Can q(z|x) be trusted as the posterior?"
    quality = words(summary.get("quality"))
    said = Markup(" Beside reference draws: {}.").format(quality) if quality else Markup("")
    if not _by_draws(summary):
        answer = "k-hat of the guide's own draws is not computed with this method; the gap is KL(q(z|x) ‖ p(z|x))."
        return Claim(question, "unknown", "not judged", escape(answer) + said)
    share = numbers.value(SHARE)
    if share == 0:
        answer = "k-hat of its draws is below 0.7 for every datum."
        return Claim(question, "good", "yes, once reweighted", escape(answer) + said)
    if share is not None and share <= FEW:
        answer = f"k-hat of its draws is 0.7 or more for {{{SHARE}:.1%}} of the data."
        return Claim(question, "caution", "for most data", numbers.fill(answer) + said)
    answer = (
        f"k-hat of its draws is 0.7 or more for {{{SHARE}:.0%}} of the data. There it misses much of the posterior, "
        "and intervals read off it are wrong, usually too narrow."
    )
    return Claim(question, "bad", "no", numbers.fill(answer) + said)


CALIBRATED: dict[str, tuple[Level, str, str]] = {
    "calibrated": ("good", "yes", "Exact draws of simulated data rank among its own as they should."),
    "bad on the data": ("bad", "no", "It is wrong on simulated data that look like these data."),
    "bad away from the data": ("caution", "on the data", "It is wrong only on simulated data unlike these data."),
    "bad": ("caution", "not on its own simulations", "Whether it is on these data, these simulations cannot tell."),
}


def _calibration(summary: dict[str, Any]) -> list[Claim]:
    said = words(summary.get("calibration"))
    if not said:
        return []
    level, word, answer = CALIBRATED.get(said, ("caution", said, "The section on calibration says more."))
    return [Claim("Is its uncertainty calibrated?", level, word, Markup(answer))]


def words(section: Any) -> str:
    """The verdict of a section in words, empty where it has none."""
    said = section.get("verdict") if isinstance(section, dict) else None
    if isinstance(said, list):
        return "; ".join(str(item) for item in said)
    return "" if said is None else str(said)
