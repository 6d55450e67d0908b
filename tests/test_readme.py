"""The programs in the README run and give what it says."""

import re

import numpy as np
import pytest

from ppvae.cli import main


@pytest.fixture
def readme(repository):
    return (repository / "README.md").read_text(encoding="utf-8")


def blocks(readme):
    return re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)


@pytest.mark.slow
def test_the_dozen_lines_print_what_is_promised(readme, capsys):
    import torch

    torch.set_default_dtype(torch.float32)  # what a user has; the fixture puts it back
    exec(blocks(readme)[0], {})
    printed = capsys.readouterr().out.strip()
    promised = re.search(r"prints `(log p\(x\).*?)`", readme).group(1)
    numbers = r"-?\d+\.\d"
    assert re.sub(numbers, "", printed) == re.sub(numbers, "", promised)
    # Libraries and processors round differently, and a training amplifies it: half a nat.
    for ours, theirs in zip(re.findall(numbers, printed), re.findall(numbers, promised), strict=True):
        assert float(ours) == pytest.approx(float(theirs), abs=0.5)


def test_the_pair_of_ones_own_is_checked_and_trained(readme, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_pair.py").write_text(blocks(readme)[1], encoding="utf-8")
    rate = np.random.default_rng(0).gamma(2.0, 2.0, size=(200, 1))
    np.save(tmp_path / "my_counts.npy", np.random.default_rng(1).poisson(rate, size=(200, 4)))
    assert main(["check", "my_pair.py", "--data", "my_counts.npy"]) == 0
    words = ["--epochs", "20", "--learning_rate", "0.05", "--num_particles", "100"]
    assert main(["run", "--pair", "my_pair.py", "--data", "my_counts.npy", "--name", "mine", *words]) == 0
    assert (tmp_path / "runs" / "mine" / "summary.json").is_file()


def test_what_the_readme_points_to_exists(readme, repository):
    paths = set(re.findall(r"`((?:ppvae|models|inference|experiments|tests)/[\w/.]+)`", readme))
    assert len(paths) > 10
    assert not [path for path in paths if not (repository / path).exists()]


@pytest.mark.slow
def test_the_estimators_program_shows_what_its_comments_say(readme, capsys):
    scope = {}
    exec(blocks(readme)[2], scope)
    evidence, pair, x = scope["evidence"], scope["pair"], scope["x"]
    assert ((evidence.log_evidence - pair.log_evidence(x)).abs() < 5 * evidence.standard_error).all()
    assert scope["bounds"].kind == "simulated"
    assert scope["bounds"].mean_lower < pair.log_evidence(scope["bounds"].x).mean() < scope["bounds"].mean_upper
    assert abs(scope["parts"]["family"]) < 0.05 < scope["parts"]["amortisation"]
    assert capsys.readouterr().out.count("\n") >= 3
