"""Kill a training with SIGKILL at random points, resume it, and compare the parameters bit by bit.

    python tests/inference/kill_and_resume.py 20 /tmp/somewhere

Imports once and forks: each attempt trains in a child, which is killed after a random time, killed again while it
resumes, and then runs to its end.
"""

import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from ppvae.datasets import load_dataset
from ppvae.inference import fit
from ppvae.models import VAE, Binomial

torch.set_num_threads(1)


DIGITS = load_dataset("digits")  # before any fork


def train(folder: Path, resume: bool) -> None:
    """One training, the hash of whose parameters it writes at its end."""
    x, validation = DIGITS.train[:300], DIGITS.validation[:100]
    torch.manual_seed(0)
    pair = VAE.for_data(x, Binomial(16), latent_dim=4, hidden=(32,))
    checkpoint = folder / "checkpoint.pt"
    fit(pair.model, pair.guide, x, validation=validation, epochs=5, batch_size=50, patience=10, checkpoint=checkpoint,
        checkpoint_seconds=0.02, resume=resume, progress=False)  # fmt: skip
    digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in pair.parameters())).hexdigest()
    (folder / "hash").write_text(digest)


def child(folder: Path, resume: bool) -> int:
    """Fork a training; the parent gets its process id."""
    process = os.fork()
    if process == 0:
        try:
            train(folder, resume)
        finally:
            os._exit(0)
    return process


def main(kills: int, folder: Path) -> None:
    """Train once undisturbed, then ``kills`` times with a kill."""
    (folder / "straight").mkdir()
    began = time.monotonic()
    os.waitpid(child(folder / "straight", False), 0)
    duration = time.monotonic() - began
    expected = (folder / "straight" / "hash").read_text()
    chance, identical, alive = random.Random(0), 0, 0
    for attempt in range(kills):
        here = folder / str(attempt)
        here.mkdir()
        for _ in range(2):
            process = child(here, (here / "checkpoint.pt").exists())
            time.sleep(chance.uniform(0.05, 0.95) * duration)
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            alive += not (here / "hash").exists()
        os.waitpid(child(here, (here / "checkpoint.pt").exists()), 0)
        identical += (here / "hash").read_text() == expected
    print(f"{identical} of {kills} identical; {alive} of {2 * kills} kills hit a running training of {duration:.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
