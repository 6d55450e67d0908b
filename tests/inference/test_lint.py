"""Every planted bug is named, its remedy mends it, and right pairs that look like one raise no alarm."""

import inspect
from pathlib import Path

import pairs
import programs
import pyro
import pytest
import torch
from bug_table import named, row
from bugs import BUILDERS, UNUSUAL
from bugs.bug import encoder_guide, model
from pyro import poutine

from ppvae.errors import PairError
from ppvae.inference import check, fit

PAGE = Path(__file__).parents[2] / "docs" / "lint.md"
# What a point estimate says of itself, and what is the second sentence of a bug that is named.
OF_ITSELF = {"prior_learnt_about_a_point": {"point-mass"}}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_planted_bug_is_named_and_its_remedy_mends_it(name):
    bug = BUILDERS[name]
    found = check(*bug.make(False))
    assert (bug.code, bug.site) in {(one.code, one.site) for one in found}, [str(one) for one in found]
    pyro.clear_param_store()
    left = check(*bug.make(True))
    assert {one.code for one in left} <= OF_ITSELF.get(name, set()), [str(one) for one in left]


@pytest.mark.parametrize("name", UNUSUAL)
def test_a_right_pair_that_looks_like_a_bug_raises_no_alarm(name):
    found = check(*UNUSUAL[name]())
    assert found == [], [str(one) for one in found]
    assert found.pair is not None


@pytest.mark.parametrize("name", BUILDERS)
def test_the_page_says_what_check_says(name):
    assert row(name) in PAGE.read_text(encoding="utf-8"), "python tests/bug_table.py > docs/lint.md"


def test_there_are_as_many_bugs_and_right_pairs_as_are_claimed():
    assert len(BUILDERS) >= 25
    assert len(UNUSUAL) >= 25
    assert f"{len(BUILDERS)} bugs" in PAGE.read_text(encoding="utf-8")


def test_a_finding_points_to_the_line_of_its_site():
    finding = named("absolute_scale")
    lines, first = inspect.getsourcelines(BUILDERS["absolute_scale"].make)
    (at,) = [first + i for i, line in enumerate(lines) if 'pyro.sample("z"' in line]
    assert finding.line.startswith(f"densities.py:{at}")
    assert f"z ({finding.line}): " in str(finding)


def test_what_is_fatal_refuses_a_training_and_a_suspicion_does_not():
    with pytest.raises(PairError, match="outside"):
        fit(*BUILDERS["logits_as_probabilities"].make(False), epochs=1, progress=False)
    assert not named("absolute_scale").fatal
    assert fit(*BUILDERS["absolute_scale"].make(False), epochs=1, progress=False) is not None


def test_what_no_program_registers_is_not_trained():
    """The finding is true: the decoder's weight is after a training what it was before."""
    broken, guide, x = BUILDERS["decoder_that_nobody_registers"].make(False)
    layer = broken.__closure__[0].cell_contents
    before = layer.weight.detach().clone()
    fit(broken, guide, x, epochs=3, progress=False)
    assert torch.equal(layer.weight, before)


def test_programs_that_resist_a_search_are_not_its_findings():
    """Data that the programs change in place cannot be leaves of a graph: what is left is the rest of check."""

    def in_place(x):
        x = x.clone() if not x.requires_grad else x
        x += 0.0
        model(x)

    assert check(in_place, encoder_guide(), torch.randn(12, 3)) == []
    assert check(poutine.block(model, hide_types=["param"]), encoder_guide(), torch.randn(12, 3)) == []


SUSPICIONS = {
    *("all-masked", "counted-twice", "ignores-x", "logits", "no-effect", "not-trained", "observes-a-function"),
    *("observed-twice", "parameter", "precision", "prior-scale", "reads-its-data", "scale-sign"),
}


@pytest.mark.slow
def test_no_right_program_and_no_pair_is_suspected():
    """The programs of docs/programs.md, and the pairs that the other tests measure."""
    suspected = {}
    for name, build, data in [
        *((name, programs.build, "x") for name in programs.BUILDERS),
        *((name, pairs.build, "data") for name in pairs.BUILDERS),
    ]:
        pyro.clear_param_store()
        one = build(name)
        suspected[name] = {f.code for f in check(one.model, one.guide, getattr(one, data))} & SUSPICIONS
    assert {name: codes for name, codes in suspected.items() if codes} == {}
