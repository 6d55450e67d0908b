"""The list that is read off the sources is that of the package itself, and torch is not imported for it."""

import subprocess
import sys

from ppvae.cli import catalogue
from ppvae.cli.console import first_sentence
from ppvae.datasets import DATASETS
from ppvae.experiments.experiment import EXPERIMENTS, find
from ppvae.experiments.runs.import_paths import known_likelihoods, known_pairs


def test_all_are_listed_in_their_own_words():
    assert catalogue.pairs() == {name: first_sentence(pair) for name, pair in known_pairs().items()}
    assert catalogue.likelihoods() == {name: first_sentence(one) for name, one in known_likelihoods().items()}
    assert catalogue.data_sets() == DATASETS
    assert catalogue.experiments() == {name: first_sentence(find(name)) for name in EXPERIMENTS}


def test_the_list_needs_no_torch(tmp_path):
    code = "import sys; from ppvae.cli import main; main(['list']); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "False"
